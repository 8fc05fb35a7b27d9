/* Error codes and messages: see err.h. */
#define ERR_HERE
#include "base/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct {
	int rc;
	const char *word, *text;
} errs[] = {
#define ERR_ROW(sym, num, word, text) { sym, word, text },
	ERR_LIST(ERR_ROW)
#undef ERR_ROW
};

int err_set(struct errmsg *em, int rc, const char *fmt, ...)
{
	if (em) {
		va_list ap;

		va_start(ap, fmt);
		vsnprintf(em->text, sizeof(em->text), fmt, ap);
		va_end(ap);
	}
	return rc;
}

int err_wrap(struct errmsg *em, int rc, const char *fmt, ...)
{
	char where[ERRMSG_BYTES];
	char what[ERRMSG_BYTES];
	va_list ap;

	if (!em)
		return rc;
	va_start(ap, fmt);
	vsnprintf(where, sizeof(where), fmt, ap);
	va_end(ap);
	snprintf(what, sizeof(what), "%s", err_show(rc, em));
	/* Both may fill their buffers; what does not fit is cut at the end. */
	int n = snprintf(em->text, sizeof(em->text), "%s: ", where);

	if (n > 0 && (size_t)n < sizeof(em->text))
		snprintf(em->text + n, sizeof(em->text) - (size_t)n, "%s", what);
	return rc;
}

int err_errno(struct errmsg *em, const char *fmt, ...)
{
	int saved = errno;
	char where[ERRMSG_BYTES];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(where, sizeof(where), fmt, ap);
	va_end(ap);
	if (em) {
		size_t n = (size_t)snprintf(em->text, sizeof(em->text), "%.400s", where);

		if (n < sizeof(em->text))
			snprintf(em->text + n, sizeof(em->text) - n, ": %s", strerror(saved));
	}
	errno = saved;
	return ERR_IO;
}

const char *err_word(int rc)
{
	if (rc == 0)
		return "ok";
	for (size_t i = 0; i < sizeof(errs) / sizeof(errs[0]); i++)
		if (errs[i].rc == rc)
			return errs[i].word;
	return "error";
}

const char *err_text(int rc)
{
	if (rc == 0)
		return "no error";
	for (size_t i = 0; i < sizeof(errs) / sizeof(errs[0]); i++)
		if (errs[i].rc == rc)
			return errs[i].text;
	return "an error without a name";
}

int err_from_word(const char *word, size_t len)
{
	for (size_t i = 0; i < sizeof(errs) / sizeof(errs[0]); i++)
		if (strlen(errs[i].word) == len && memcmp(errs[i].word, word, len) == 0)
			return errs[i].rc;
	return ERR_UNKNOWN;
}

const char *err_show(int rc, const struct errmsg *em)
{
	return em && em->text[0] ? em->text : err_text(rc);
}
