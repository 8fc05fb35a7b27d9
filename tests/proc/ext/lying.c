/* An extension that somebody has broken into: it shares its process with the tos-ext that speaks for it, and writes to
 * the kernel itself. "lie" NUMBER says what; "version" is answered as it should be. What the frames are is in
 * src/wire/extproto.h; this knows no more of the project than that. */
#include <tos/extension.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static uint8_t out[3 << 20];
static size_t n_out;
static uint64_t kept; /* the token of a call that is not answered */

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

static void text(const char *s)
{
	head(3, strlen(s));
	put(s, strlen(s));
}

static void begin(unsigned items, unsigned type)
{
	n_out = 4;
	head(4, items);
	head(0, type);
}

static void raw(const void *p, size_t n)
{
	const uint8_t *at = p;

	while (n) {
		ssize_t w = write(3, at, n);

		if (w <= 0) {
			usleep(1000);
			continue;
		}
		at += w;
		n -= (size_t)w;
	}
}

static void end(void)
{
	for (int i = 0; i < 4; i++)
		out[i] = (uint8_t)((n_out - 4) >> (24 - 8 * i));
	raw(out, n_out);
}

static void folder(size_t depth)
{
	head(4, 2);
	text("ok");
	head(4, 1);
	for (size_t i = 0; i < depth; i++)
		head(4, 1);
	head(0, 7);
}

static void simple(unsigned type)
{
	begin(1, type);
	end();
}

static void send_post(unsigned kind, const char *dest, uint64_t seq, size_t depth)
{
	begin(6, 82);
	head(0, kind);
	text(dest);
	head(0, seq);
	head(0, 1000);
	folder(depth);
	end();
}

static void taken(const char *inbox, uint64_t n)
{
	begin(3, 85);
	text(inbox);
	head(0, n);
	end();
}

static void reply(uint64_t token, size_t depth)
{
	begin(3, 83);
	head(0, token);
	folder(depth);
	end();
}

static void fail(uint64_t token, unsigned major, uint64_t code)
{
	begin(4, 84);
	head(0, token);
	head(major, code);
	text("so there");
	end();
}

static void bytes(int lie)
{
	static const char *const what[] = { "", "\xde\xad\xbe\xef garbage",
		"\xff\xff\xff\xff\x81\x00", "\x00\x00\x00\x00", "\x00\x00\x00\x03\xff\xff\xff",
		"\x00\x00\x00\x02\x9f\xff", "\x00\x00\x00\x03\x81\x18\x63",
		"\x00\x10\x80\x00" };
	static const size_t n[] = { 0, 12, 6, 4, 7, 6, 7, 4 };

	raw(what[lie], n[lie]);
	if (lie == 7)
		for (size_t left = 0x108000; left; left -= 4096)
			raw(out, 4096); /* a frame larger than any */
}

static void meaning(int lie)
{
	switch (lie) {
	case 20:
		simple(81);
		return; /* started, once more */
	case 21:        /* hello, once more */
		begin(2, 80);
		head(5, 0);
		end();
		return;
	case 22: /* its start failed, long after */
		begin(3, 90);
		head(1, 1);
		text("no");
		end();
		return;
	case 23:
		reply(kept + 1000, 0);
		return; /* never asked */
	case 24:
		reply(0, 0);
		return;
	case 25:
		reply(kept, 40);
		return; /* too deep */
	case 26:
		fail(kept, 0, 5);
		return; /* no error */
	case 27:
		fail(kept, 1, 300);
		return;
	case 28:
		taken("Liar", 1000);
		return;
	case 29:
		taken("Greeter", 1);
		return;
	case 30:
		taken("Liar", 18446744073709551615u);
		return;
	case 31:
		send_post(0, "Echo", 5, 0);
		return; /* one-way, and numbered */
	case 32:
		send_post(1, "Echo", 0, 0);
		return; /* a call without a number */
	case 33:
		send_post(1, "Echo", 18446744073709551615u, 0);
		return;
	case 34:
		send_post(2, "Echo", 0, 0);
		return; /* an answer to nobody's question */
	case 35:
		send_post(0, "", 0, 0);
		return;
	case 36:
		send_post(0, "Echo", 0, 40);
		return;
	case 37: /* a counter of no such name */
		begin(3, 87);
		text("x\"} 1\nevil 2\n{");
		head(0, 1);
		end();
		return;
	case 38: /* a property that it has not */
		begin(3, 88);
		text("/none");
		text("1");
		end();
		return;
	case 39:
		simple(91);
		return; /* drained, unasked */
	case 40:
		simple(66);
		return; /* what kernels say */
	case 41:
		begin(3, 86);
		head(0, 99);
		text("no such level");
		end();
		return;
	}
}

static void much(int lie)
{
	switch (lie) {
	case 50: /* posts to many */
		for (int i = 0; i < 20000; i++)
			send_post(0, i % 2 ? "Nobody" : "host0#9999/x", 0, 0);
		return;
	case 51: /* one answer, many times over: an answer may cross the call's end */
		for (int i = 0; i < 20000; i++)
			reply(kept, 0);
		return;
	case 52:
		for (int i = 0; i < 20000; i++) {
			begin(3, 86);
			head(0, 4);
			text("\x1b[2J a line that is nobody's");
			end();
		}
		return;
	case 53: /* new counters */
		for (int i = 0; i < 5000; i++) {
			char name[40] = "c";

			for (int n = 1, v = i; n < 8; n++, v /= 26)
				name[n] = (char)('a' + v % 26);
			begin(3, 87);
			text(name);
			head(0, 18446744073709551615u);
			end();
		}
		return;
	case 54: /* that post on through a kernel: its inbox is not one that locates */
		begin(3, 89);
		head(0, kept);
		text("host1");
		end();
		return;
	case 55:
		send_post(0, "host0/Extender", 0, 0);
		return; /* in whose name? */
	}
}

static void wake(struct tos_ext *x, struct tos_inbox *in)
{
	struct tos_message m;

	while (tos_inbox_next(in, &m)) {
		const char *what = tos_as_text(tos_at(m.elements, 0), "");
		int lie = (int)tos_as_int(tos_at(m.elements, 1), 0);

		if (strcmp(what, "keep") == 0) {
			kept = m.token;
		} else if (strcmp(what, "lie") == 0) {
			if (lie < 20)
				bytes(lie);
			else if (lie < 50)
				meaning(lie);
			else
				much(lie);
		} else if (m.token) {
			tos_reply(x, m.token, "ok", NULL);
		}
	}
}

static const struct tos_inbox_spec inboxes[] = { { .name = "Liar", .wake = wake }, { 0 } };

const struct tos_extension tos_extension = { TOS_ABI, .name = "liar", .inboxes = inboxes };
