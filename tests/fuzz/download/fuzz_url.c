/*
 * What Download is given and what servers answer: URLs, redirects, places, indexes. The input is a kind and, by line ends
 * parted, its texts. What is taken as a URL is what it seems: it parses to itself, at most what a place lists is at that
 * place, and its path goes nowhere up.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "download/index.h"
#include "download/url.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void url_check(const struct url *u)
{
	static struct url again;
	const char *up;

	must(url_parse(u->text, &again) == NULL);
	must(strcmp(again.text, u->text) == 0 && strcmp(again.host, u->host) == 0);
	must(strcmp(again.path, u->path) == 0 && again.port == u->port);
	must(u->path[0] == '/' && u->host[0]);
	up = strstr(u->path, "/../");
	must(!up || memchr(u->path, '?', (size_t)(up - u->path)));
	must(!strchr(u->text, '\\') && !strchr(u->text, '#'));
}

static void urls(char *base, char *second)
{
	static struct url u, to;
	uint8_t digest[32];
	bool admit;

	if (url_parse(base, &u))
		return;
	url_check(&u);
	url_digest(&u, digest);
	if (strcmp(u.scheme, "tos") != 0 && !strchr(u.text, '?'))
		must(url_at(&u, u.text, &admit) && !admit);
	url_at(&u, second, &admit);
	if (url_resolve(&u, second, &to) == NULL)
		url_check(&to);
}

static void indexes(const uint8_t *data, size_t size)
{
	const char *wrong = NULL;
	struct tos_value *v = index_read(data, size, &wrong), *rows = NULL, *refused = NULL;
	struct tos_value *checked = NULL;
	const char *text;

	must((v == NULL) == (wrong != NULL));
	/* The same bytes as what a kernel might say of it: anything but what was asked for is refused. */
	if (v && tos_decode(data, size, 0, &checked) == 0 &&
		index_rows(v, checked, &rows, &refused, &text) == 0)
		must(tos_len(rows) + tos_len(refused) == tos_len(v));
	tos_value_free(rows);
	tos_value_free(refused);
	tos_value_free(checked);
	tos_value_free(v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	AUTOFREE char *text = NULL;
	char *second;

	if (!size || size > INDEX_BYTES_MAX + 64)
		return 0;
	if (data[0] == 'i') {
		indexes(data + 1, size - 1);
		return 0;
	}
	text = mem_dup(data + 1, size - 1);
	second = strchr(text, '\n');
	if (second)
		*second++ = 0;
	urls(text, second ? second : text + strlen(text));
	return 0;
}
