/*
 * Stands where tos-vm should: a tos-vm that somebody has broken into. Which lie it tells about a
 * carrier stands in that carrier's code, "LIE:7". It speaks the frames of src/wire/vmproto.h, and
 * knows no more of the project than that. Static, as tos-vm is; its sandbox is the real one.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FRAME_MAX (1 << 20)

static uint8_t out[FRAME_MAX + 4096], in[8 << 20];
static size_t n_out;

static void put(const void *p, size_t n)
{
	memcpy(out + n_out, p, n);
	n_out += n;
}

static void head(unsigned major, uint64_t v)
{
	uint8_t b[9];
	int width = v < 24 ? 0 : v < 256 ? 1 : v < 65536 ? 2 : v < 4294967296u ? 4 : 8;

	b[0] = (uint8_t)(major << 5 | (width == 0          ? v
					      : width == 1 ? 24u
					      : width == 2 ? 25u
					      : width == 4 ? 26u
							   : 27u));
	for (int i = 0; i < width; i++)
		b[1 + i] = (uint8_t)(v >> (8 * (width - 1 - i)));
	put(b, 1 + (size_t)width);
}

static void number(uint64_t v)
{
	head(0, v);
}

static void text(const char *s)
{
	head(3, strlen(s));
	put(s, strlen(s));
}

static void begin(unsigned items, unsigned type, uint64_t c)
{
	n_out = 4;
	head(4, items);
	number(type);
	number(c);
}

static void raw(const void *p, size_t n)
{
	const uint8_t *at = p;

	while (n) {
		ssize_t w = write(3, at, n);

		if (w <= 0)
			_exit(0);
		at += w;
		n -= (size_t)w;
	}
}

static void end(void)
{
	size_t n = n_out - 4;

	for (int i = 0; i < 4; i++)
		out[i] = (uint8_t)(n >> (24 - 8 * i));
	raw(out, n_out);
}

static void frozen(void)
{
	head(5, 3);
	text("path");
	head(4, 0);
	text("state");
	head(2, 0);
	text("briefcase");
	head(5, 0);
}

static void folder(const char *name, size_t depth)
{
	head(4, 2);
	text(name);
	head(4, 1);
	for (size_t i = 0; i < depth; i++)
		head(4, 1);
	number(7);
}

static void simple(unsigned type, uint64_t c)
{
	begin(2, type, c);
	end();
}

static void finished(uint64_t c)
{
	begin(3, 52, c);
	frozen();
	end();
}

static void send_post(uint64_t c, unsigned kind, const char *dest, uint64_t tag, size_t depth)
{
	begin(7, 50, c);
	number(kind);
	text(dest);
	number(tag);
	number(1000);
	folder("x", depth);
	end();
}

static void log_line(uint64_t c, size_t bytes)
{
	begin(4, 55, c);
	number(1);
	head(3, bytes);
	memset(out + n_out, 'x', bytes);
	n_out += bytes;
	end();
}

static void go(uint64_t c, const char *dest)
{
	begin(5, 51, c);
	number(1);
	text(dest);
	frozen();
	end();
}

static void fault(uint64_t c, size_t bytes)
{
	begin(6, 53, c);
	text("fault");
	head(3, bytes);
	memset(out + n_out, 'x', bytes);
	n_out += bytes;
	text("");
	frozen();
	end();
}

static void started(uint64_t c)
{
	simple(49, c);
}

static void lie_bytes(unsigned which)
{
	static const uint8_t zeros[4], huge[4] = { 255, 255, 255, 255 };
	static const uint8_t indefinite[] = { 0, 0, 0, 4, 0x9f, 0x18, 0x31, 0xff };
	static const uint8_t longer_head[] = { 0, 0, 0, 5, 0x82, 0x19, 0, 49, 1 };
	static const uint8_t half[] = { 0, 0, 1, 0, 0x82, 0x18 };
	static const uint8_t no_array[] = { 0, 0, 0, 1, 0xa0 };

	switch (which) {
	case 1:
		raw("GET / HTTP/1.0\r\n\r\n and more of that", 35);
		break;
	case 2:
		raw(huge, 4);
		break;
	case 3:
		raw(zeros, 4);
		break;
	case 4:
		raw(indefinite, sizeof(indefinite));
		break;
	case 5:
		raw(longer_head, sizeof(longer_head));
		break;
	case 6:
		raw(half, sizeof(half));
		break;
	default:
		raw(no_array, sizeof(no_array));
		break;
	}
}

/* Frames that are well formed and mean what they must not. */
static void lie_meaning(unsigned which, uint64_t c)
{
	switch (which) {
	case 20:
		simple(99, c);
		break;
	case 21:
		begin(3, 32, c);
		head(5, 0);
		end();
		break;
	case 22:
		finished(c);
		finished(c);
		break;
	case 23:
		started(c);
		started(c);
		break;
	case 24:
		started(c);
		begin(3, 52, c);
		head(5, 0);
		end();
		break;
	case 25:
		started(c);
		for (uint64_t other = 0; other < 64; other++)
			if (other != c)
				finished(other);
		finished(UINT64_MAX >> 1);
		break;
	case 26:
		simple(59, c);
		simple(59, c);
		break;
	case 27:
		started(c);
		simple(60, c);
		break;
	case 28:
		started(c);
		begin(4, 57, c);
		text("never");
		number(1000000);
		end();
		break;
	case 29:
		started(c);
		send_post(c, 7, "Echo", 1, 0);
		break;
	case 30:
		started(c);
		send_post(c, 1, "Echo", 1, 40);
		break;
	case 31:
		started(c);
		send_post(c, 2, "host0/client/1", 1, 0);
		send_post(c, 3, "host0/client/1", 1, 0);
		break;
	case 32:
		begin(2, 48, 1);
		end();
		begin(2, 48, 1);
		end();
		break;
	case 33:
		started(c);
		begin(4, 54, c);
		number(1);
		head(5, 3);
		text("path");
		head(4, 0);
		text("state");
		head(2, 900000);
		memset(out + n_out, 0xff, 900000);
		n_out += 900000;
		text("briefcase");
		head(5, 0);
		end();
		break;
	default:
		started(c);
		begin(4, 58, c);
		number(UINT64_MAX);
		number(UINT64_MAX);
		end();
		break;
	}
}

/* What is allowed, and far too much of it, or what policy has to refuse; it ends by itself. */
static void lie_much(unsigned which, uint64_t c)
{
	started(c);
	switch (which) {
	case 50:
		for (int i = 0; i < 20000; i++)
			log_line(c, 200);
		break;
	case 51:
		for (int i = 0; i < 20000; i++)
			send_post(c, 0, "Echo", 0, 0);
		break;
	case 52:
		send_post(c, 1, "Handoff", 1, 0);
		send_post(c, 1, "host0/Control", 2, 0);
		send_post(c, 1, "Shells", 3, 0);
		send_post(c, 1, "host1/Home", 4, 0);
		break;
	case 53:
		go(c, "host1");
		return;
	case 54:
		for (unsigned i = 0; i < 5000; i++) {
			char name[16] = "inbox-00000";

			for (unsigned k = 0, v = i; k < 5; k++, v /= 10)
				name[10 - k] = (char)('0' + v % 10);
			begin(6, 56, c);
			number(i + 1);
			head(7, 21);
			text(name);
			number(1);
			end();
		}
		break;
	case 55:
		fault(c, 60000);
		return;
	case 56:
		for (int i = 0; i < 5000; i++) {
			begin(4, 58, c);
			number(0);
			number(0);
			end();
		}
		break;
	default:
		break;
	}
	finished(c);
}

static void lie(unsigned which, uint64_t c)
{
	if (which == 0) {
		started(c);
		finished(c);
	} else if (which == 70) {
		started(c); /* and finishes when something is delivered */
		begin(6, 56, c);
		number(1);
		head(7, 21);
		text("x");
		number(4);
		end();
	} else if (which == 71) {
		started(c);
		shutdown(3, SHUT_RDWR);
	} else if (which == 72) {
		_exit(0);
	} else if (which == 73) {
		started(c);
		for (;;)
			;
	} else if (which < 20) {
		started(c);
		lie_bytes(which);
	} else if (which < 50) {
		lie_meaning(which, c);
	} else {
		lie_much(which, c);
	}
}

static uint64_t read_number(const uint8_t *p)
{
	unsigned low = p[0] & 31;
	int width = low < 24 ? 0 : 1 << (low - 24);
	uint64_t v = width ? 0 : low;

	for (int i = 0; i < width; i++)
		v = v << 8 | p[1 + i];
	return v;
}

static unsigned which_lie(const uint8_t *p, size_t n)
{
	for (size_t i = 0; i + 6 < n; i++)
		if (memcmp(p + i, "LIE:", 4) == 0)
			return (unsigned)atoi((const char *)p + i + 4);
	return 0;
}

static int fill(size_t n)
{
	for (size_t at = 0; at < n;) {
		ssize_t got = read(3, in + at, n - at);

		if (got <= 0)
			return -1;
		at += (size_t)got;
	}
	in[n] = 0;
	return 0;
}

int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "--check") == 0)
		return 0; /* tos asks whether the text parses */
	begin(2, 48, 1);
	end();
	while (fill(4) == 0) {
		size_t n =
			(size_t)in[0] << 24 | (size_t)in[1] << 16 | (size_t)in[2] << 8 | in[3];

		if (n < 4 || n >= sizeof(in) || fill(n) < 0)
			break;
		if (in[1] == 0x18 && in[2] == 32)
			lie(which_lie(in, n), read_number(in + 3));
		else if (in[1] == 0x18 && in[2] == 33)
			finished(read_number(in + 3));
		else if (in[1] == 0x18 && in[2] == 35) {
			begin(3, 59, read_number(in + 3));
			number(0);
			end();
		}
	}
	(void)argv;
	return 0;
}
