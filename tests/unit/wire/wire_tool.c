/*
 * Our codec for other programs to compare theirs with, one request a line on standard input:
 *   make KIND         the sample of that kind, in hex
 *   again KIND HEX    decode and encode again: "ok HEX" or the word of the error
 *   diag KIND         the sample in diagnostic notation (a frame without its length)
 *   kinds             all kinds
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tos/value.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/text.h"
#include "samples.h"

static void print_hex(const struct buf *b)
{
	AUTOFREE char *text = mem_zero(2 * b->len + 1);

	puts(text_hex(b->data, b->len, text));
}

static void again(const char *kind, const char *hex)
{
	size_t n = strlen(hex) / 2;
	AUTOFREE uint8_t *in = mem_zero(n);
	AUTOBUF out = BUF_INIT;
	bool open;
	int rc;

	if (text_unhex(hex, strlen(hex), in, n) < 0) {
		puts("usage");
		return;
	}
	rc = sample_again(kind, (struct slice){ in, n }, &out, &open);
	if (rc < 0) {
		puts(err_word(rc));
		return;
	}
	fputs("ok ", stdout);
	print_hex(&out);
}

static void diag(const char *kind)
{
	struct tos_value *v = NULL;
	AUTOFREE char *text = NULL;
	AUTOBUF b = BUF_INIT;
	bool cose;
	size_t at;

	if (!sample_make(kind, &b)) {
		puts("usage");
		return;
	}
	at = b.data[0] == 0 ? 4 : 0;
	cose = b.data[at] == 0xd2; /* tag 18, which no value has */
	at += cose;
	if (tos_decode_state(b.data + at, b.len - at, 0, &v) == 0)
		text = tos_to_diag(v);
	printf("%s%s%s\n", cose ? "18(" : "", text ? text : "?", cose ? ")" : "");
	tos_value_free(v);
}

int main(void)
{
	static char line[1 << 20];

	while (fgets(line, sizeof(line), stdin)) {
		char *save, *verb = strtok_r(line, " \n", &save);
		char *kind = strtok_r(NULL, " \n", &save), *hex = strtok_r(NULL, " \n", &save);
		AUTOBUF out = BUF_INIT;

		if (verb && strcmp(verb, "kinds") == 0) {
			for (size_t i = 0; sample_kinds[i]; i++)
				printf("%s%s", i ? " " : "", sample_kinds[i]);
			puts("");
		} else if (verb && kind && strcmp(verb, "make") == 0) {
			if (sample_make(kind, &out))
				print_hex(&out);
			else
				puts("usage");
		} else if (verb && kind && strcmp(verb, "diag") == 0) {
			diag(kind);
		} else if (verb && kind && strcmp(verb, "again") == 0) {
			again(kind, hex ? hex : "");
		} else {
			puts("usage");
		}
		fflush(stdout);
	}
	return 0;
}
