/*
 * Yardstick of the call: two C processes that echo over mutual TLS 1.3 on loopback, with the
 * same TLS sessions, certificates and socket options as the links between kernels, and nothing
 * else. `tls_echo N BYTES OUTSTANDING`
 */
#include "bench.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "seal/seal.h"

#define MESSAGE_MAX 4096

struct end {
	int fd;
	struct tls_session *tls;
	struct buf plain, wire;
};

static void check(int rc, const char *what, const struct errmsg *em)
{
	if (rc == 0)
		return;
	fprintf(stderr, "%s: %s\n", what, err_show(rc, em));
	exit(1);
}

static void make_signer(
	const struct key *root, struct slice root_der, const char *name, struct signer *s)
{
	struct errmsg em = { "" };
	int64_t now = clock_wall_ms();
	uint8_t public_key[32];

	s->key = key_new();
	key_public(s->key, public_key);
	check(cert_issue(root, root_der, CERT_KERNEL, name, 0, public_key, now - 60000,
		      now + 3600000, &s->chain[0], &em),
		"certificate", &em);
	s->n_chain = 1;
	check(cert_info((struct slice){ s->chain[0].data, s->chain[0].len }, &s->info, &em),
		"certificate", &em);
}

static void flush(struct end *e)
{
	size_t done = 0;

	while (done < e->wire.len) {
		ssize_t n = write(e->fd, e->wire.data + done, e->wire.len - done);

		if (n <= 0)
			bench_die("write");
		done += (size_t)n;
	}
	buf_clear(&e->wire);
}

/* False at the end of the conversation. */
static int receive(struct end *e)
{
	uint8_t bytes[65536];
	struct errmsg em = { "" };
	ssize_t n = read(e->fd, bytes, sizeof(bytes));

	if (n <= 0)
		return 0;
	if (tls_feed(e->tls, bytes, (size_t)n, &e->plain, &e->wire, &em) < 0)
		return 0;
	flush(e);
	return 1;
}

static void end_open(struct end *e, int fd, struct tls_context *t, int server)
{
	struct errmsg em = { "" };
	int on = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	*e = (struct end){
		.fd = fd, .tls = tls_session_new(t, server), .plain = BUF_INIT, .wire = BUF_INIT
	};
	if (!server) {
		check(tls_start(e->tls, &e->wire, &em), "handshake", &em);
		flush(e);
	}
	while (!tls_ready(e->tls))
		if (!receive(e)) {
			fprintf(stderr, "the handshake failed\n");
			exit(1);
		}
}

static void echo(struct end *e)
{
	struct errmsg em = { "" };

	/* The first words may have come with the end of the handshake. */
	do {
		if (!e->plain.len)
			continue;
		check(tls_send(e->tls, e->plain.data, e->plain.len, &e->wire, &em), "send",
			&em);
		buf_clear(&e->plain);
		flush(e);
	} while (receive(e));
	_exit(0);
}

static double ask(struct end *e, size_t n, size_t bytes, size_t outstanding, double *us)
{
	static uint8_t message[MESSAGE_MAX];
	double begun = bench_us(), sent = begun;
	struct errmsg em = { "" };
	size_t done = 0, asked = 0;

	while (done < n) {
		if (asked - done < outstanding && asked < n) {
			sent = bench_us();
			check(tls_send(e->tls, message, bytes, &e->wire, &em), "send", &em);
			flush(e);
			asked++;
			if (asked - done < outstanding && asked < n)
				continue;
		}
		if (!receive(e))
			bench_die("read");
		while (e->plain.len >= bytes) {
			memmove(e->plain.data, e->plain.data + bytes, e->plain.len - bytes);
			e->plain.len -= bytes;
			us[done++] = bench_us() - sent;
		}
	}
	return (double)n * 1e6 / (bench_us() - begun);
}

int main(int argc, char **argv)
{
	size_t n = argc > 1 ? strtoul(argv[1], NULL, 10) : 5000;
	size_t bytes = argc > 2 ? strtoul(argv[2], NULL, 10) : 64;
	size_t outstanding = argc > 3 ? strtoul(argv[3], NULL, 10) : 1;
	struct sockaddr_in at = { .sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(at);
	struct key *root = key_new();
	struct buf root_der = BUF_INIT;
	struct signer s[2] = { { .chain = { BUF_INIT } }, { .chain = { BUF_INIT } } };
	struct tls_context *t;
	struct errmsg em = { "" };
	uint8_t public_key[32];
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	double *us = calloc(n ? n : 1, sizeof(*us)), rate;
	struct end e;
	pid_t pid;

	if (!n || !bytes || bytes > MESSAGE_MAX || !outstanding || !us)
		return 2;
	signal(SIGPIPE, SIG_IGN);
	key_public(root, public_key);
	check(cert_issue(root, (struct slice){ NULL, 0 }, CERT_ROOT, "bench", 0, public_key,
		      clock_wall_ms() - 60000, clock_wall_ms() + 3600000, &root_der, &em),
		"root", &em);
	struct slice der = { root_der.data, root_der.len };

	make_signer(root, der, "host0", &s[0]);
	make_signer(root, der, "host1", &s[1]);
	if (bind(listener, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(listener, 1) < 0 ||
		getsockname(listener, (struct sockaddr *)&at, &len) < 0)
		bench_die("listen");
	pid = fork();
	if (pid == 0) {
		check(tls_context_new(&s[1], der, &t, &em), "context", &em);
		end_open(&e, accept(listener, NULL, NULL), t, 1);
		echo(&e);
	}
	check(tls_context_new(&s[0], der, &t, &em), "context", &em);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (connect(fd, (struct sockaddr *)&at, sizeof(at)) < 0)
		bench_die("connect");
	end_open(&e, fd, t, 0);
	ask(&e, n / 10 + 1, bytes, outstanding, us); /* warm */
	rate = ask(&e, n, bytes, outstanding, us);
	close(fd);
	waitpid(pid, NULL, 0);
	bench_print(us, n, rate);
	free(us);
	return 0;
}
