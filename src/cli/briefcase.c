/*
 * Briefcases in files (launch --briefcase): JSON as tos_to_json() writes it, or CBOR. Bytes are
 * written "base64:..." in JSON, or {"base64": "..."}; whoever has texts that begin like that
 * takes CBOR.
 */
#include <ctype.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cli/cli.h"
#include "lib/bundle.h"

#define FILE_MOST ((size_t)64 << 20)

static int digit_of(char c)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *at = c ? strchr(digits, c) : NULL;

	return at ? (int)(at - digits) : -1;
}

struct tos_value *base64_value(const char *s)
{
	size_t n = strlen(s), len = 0;
	AUTOFREE uint8_t *out = mem_try(n + 1);
	uint32_t bits = 0;

	if (!out || n % 4)
		return NULL;
	for (size_t i = 0; i < n; i++) {
		bool pad = s[i] == '=' && i + 2 >= n && (i + 1 == n || s[i + 1] == '=');
		int d = pad ? 0 : digit_of(s[i]);

		if (d < 0)
			return NULL;
		bits = bits << 6 | (uint32_t)d;
		if (i % 4 != 3)
			continue;
		for (int k = 2; k >= 0; k--)
			out[len++] = (uint8_t)(bits >> (8 * k));
	}
	len -= n && s[n - 1] == '=' ? 1 : 0;
	len -= n > 1 && s[n - 2] == '=' ? 1 : 0;
	return tos_bytes(out, len);
}

static int from_text(
	const struct buf *text, const char *file, struct tos_value **out, struct errmsg *em)
{
	json_error_t why;
	json_t *j =
		json_loadb((const char *)text->data, text->len, JSON_REJECT_DUPLICATES, &why);

	if (!j)
		return err_set(em, ERR_MALFORMED, "%s:%d:%d: %s", file, why.line, why.column,
			why.text);
	*out = json_value(j, true);
	json_decref(j);
	return *out ? 0
		    : err_set(em, ERR_MALFORMED,
			      "%s: a value in it cannot be an element: nested too deep, or wrong "
			      "base64",
			      file);
}

/* What `tos wait --json` prints holds one. */
static struct tos_value *of_outcome(struct tos_value *v)
{
	const struct tos_value *inner = tos_get(v, "briefcase");
	struct tos_value *copy;

	if (tos_type(inner) != TOS_MAP)
		return v;
	copy = tos_value_copy(inner);
	tos_value_free(v);
	return copy;
}

int briefcase_read(const char *file, struct tos_value **out, struct errmsg *em)
{
	struct buf text = BUF_MAX(FILE_MOST);
	struct tos_value *v = NULL;
	size_t at = 0;
	int rc = bytes_read(file, FILE_MOST, &text, em);

	while (rc == 0 && at < text.len && isspace(text.data[at]))
		at++;
	if (rc == 0 && at == text.len)
		rc = err_set(em, ERR_MALFORMED, "%s is empty", file);
	else if (rc == 0 && text.data[at] < 0x80) {
		rc = from_text(&text, file, &v, em);
		v = rc ? NULL : of_outcome(v);
		rc = rc ? rc : briefcase_valid(v, file, em);
	} else if (rc == 0)
		rc = briefcase_unpack((struct slice){ text.data, text.len }, file, &v, em);
	buf_fini(&text);
	if (rc < 0)
		tos_value_free(v);
	else
		*out = v;
	return rc;
}

/* The code that it brings along, or NULL. */
static const struct tos_value *code_of(const struct tos_value *b)
{
	const struct tos_value *code = tos_get(b, "CODE");

	return code ? code : tos_get(b, "X-CODE");
}

static int take_code(struct cli *cli, const struct tos_value *b, const char *file)
{
	const struct tos_value *code = code_of(b);
	size_t n = 0;
	const uint8_t *p = tos_as_bytes(tos_at(code, 0), &n);

	if (!code)
		return err_set(&cli->em, ERR_USAGE,
			"%s has no folder CODE; name the carrier, or put its source there",
			file);
	if (tos_len(code) != 1 || !p)
		return err_set(&cli->em, ERR_MALFORMED,
			"%s: folder CODE holds one element, the source of the carrier", file);
	return tos_shell_source(file, (const char *)p, n, &cli->shell, cli_err(cli));
}

static int take_host(struct cli *cli, const struct tos_value *b, const char *file)
{
	const struct tos_value *host = tos_get(b, "HOST");
	AUTOBUF path = BUF_INIT;

	if (!tos_len(host))
		return 0;
	for (size_t i = 0; i < tos_len(host); i++) {
		const char *entry = tos_as_text(tos_at(host, i), "");

		if (!*entry || strchr(entry, ','))
			return err_set(&cli->em, ERR_NAME,
				"%s: folder HOST: element %zu is no entry of a path", file,
				i + 1);
		buf_printf(&path, "%s%s", i ? "," : "", entry);
	}
	if (tos_shell_path(cli->shell, buf_cstr(&path), cli_err(cli)) < 0)
		return err_wrap(&cli->em, ERR_NAME, "%s: folder HOST", file);
	return 0;
}

int briefcase_take(struct cli *cli)
{
	static const char *const reserved[] = { "CODE", "X-CODE", "HOST", "PATH" };
	const char *file = cli_option(cli, "briefcase");
	struct tos_value *b = NULL;
	int rc = file ? briefcase_read(file, &b, &cli->em) : 0;

	if (!file || rc < 0)
		return rc;
	if (!cli->shell)
		rc = take_code(cli, b, file);
	else if (code_of(b))
		rc = err_set(&cli->em, ERR_USAGE,
			"the carrier's code is given twice: in folder CODE of %s too", file);
	rc = rc ? rc : take_host(cli, b, file);
	for (size_t i = 0; i < ARRAY_LEN(reserved); i++)
		tos_unset(b, reserved[i]);
	rc = rc ? rc : shell_pack(cli->shell, b, &cli->em);
	tos_value_free(b);
	return rc;
}
