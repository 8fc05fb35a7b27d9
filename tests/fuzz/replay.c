/*
 * A fuzz target without a fuzzer: feeds every file of the folders and files named on the
 * command line to LLVMFuzzerTestOneInput, so that the kept corpus is an ordinary test in every
 * build. Then a fixed pseudo-random run changes bytes of these inputs, so that the target is
 * exercised even where there is no libFuzzer; TOS_FUZZ_ROUNDS says how many (0: none).
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INPUT_MAX   (1u << 20)
#define INPUTS_MAX  4096
#define ROUNDS      20000
#define CHANGES_MAX 4

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct {
	uint8_t *data;
	size_t size;
} inputs[INPUTS_MAX];
static size_t n_inputs;

/* In memory of exactly its size, so that a sanitizer sees each byte read behind it. */
static void feed(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1);

	if (!copy)
		abort();
	memcpy(copy, data, size);
	LLVMFuzzerTestOneInput(copy, size);
	free(copy);
}

static int load_file(const char *path)
{
	FILE *f = fopen(path, "rb");
	uint8_t *data;
	size_t n;

	if (!f) {
		perror(path);
		return -1;
	}
	data = malloc(INPUT_MAX);
	if (!data)
		abort();
	n = fread(data, 1, INPUT_MAX, f);
	fclose(f);
	feed(data, n);
	if (n_inputs < INPUTS_MAX) {
		inputs[n_inputs].data = realloc(data, n ? n : 1);
		if (!inputs[n_inputs].data)
			abort();
		inputs[n_inputs++].size = n;
	} else {
		free(data);
	}
	return 0;
}

static int load(const char *path)
{
	DIR *d = opendir(path);
	struct dirent *e;
	int rc = 0;

	if (!d)
		return load_file(path);
	while ((e = readdir(d))) {
		char name[4096];

		if (e->d_name[0] == '.')
			continue;
		snprintf(name, sizeof(name), "%s/%s", path, e->d_name);
		rc |= load_file(name);
	}
	closedir(d);
	return rc;
}

static uint64_t next_random(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

static void mutate(unsigned long rounds)
{
	static uint8_t work[INPUT_MAX];
	uint64_t seed = 0x9e3779b97f4a7c15u;

	for (unsigned long i = 0; n_inputs && i < rounds; i++) {
		size_t which = (size_t)(next_random(&seed) % n_inputs);
		size_t n = inputs[which].size;
		unsigned changes = 1 + (unsigned)(next_random(&seed) % CHANGES_MAX);

		if (n == 0)
			continue;
		memcpy(work, inputs[which].data, n);
		while (changes--) {
			uint64_t r = next_random(&seed);
			size_t at = (size_t)(r >> 16) % n;

			if (r % 8 == 0 && n > 1) { /* drop a byte */
				memmove(work + at, work + at + 1, n - at - 1);
				n--;
			} else if (r % 8 == 1) { /* cut */
				n = at + 1;
			} else {
				work[at] = (uint8_t)(r % 8 < 5 ? r >> 56
							       : work[at] ^ 1u << (r >> 8 & 7));
			}
		}
		feed(work, n);
	}
}

int main(int argc, char **argv)
{
	const char *rounds = getenv("TOS_FUZZ_ROUNDS");
	int rc = 0;

	LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
	for (int i = 1; i < argc; i++)
		rc |= load(argv[i]);
	if (argc > 1 && n_inputs == 0) {
		fprintf(stderr, "no input in what was named\n");
		rc = -1;
	}
	mutate(rounds ? strtoul(rounds, NULL, 10) : ROUNDS);
	printf("%zu inputs\n", n_inputs);
	for (size_t i = 0; i < n_inputs; i++)
		free(inputs[i].data);
	return rc ? 1 : 0;
}
