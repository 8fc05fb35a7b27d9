/*
 * What the tests of links share: a domain, kernels of it in this process on one loop over real
 * loopback TCP with real TLS, and a raw peer that speaks TLS but no rules. Every wait is
 * bounded.
 */
#pragma once

/* cmocka wants these before it */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/clock.h"
#include "link/link.h"
#include "loop/conn.h"

#define TOWN_NODES 4

/* One kernel's links, and what they told it. */
struct node {
	struct town *town;
	char name[32];
	struct signer *signer;
	struct tls_context *tls;
	struct links *ls;
	struct links_config config;
	uint16_t port, second_port;
	uint64_t boot_count;
	uint8_t boot_nonce[16];
	char domain[65];
	uint32_t version_min, version_max;
	bool unresolvable; /* others know no address of it */
	char more[4][128]; /* tried before */
	char address[128]; /* instead of its own port, if set */
	int refuse;        /* what up() answers */
	bool consume;      /* say link_consumed() for each frame */
	int frame_rc;
	const char *set_name;
	void (*in_up)(struct node *n, struct link *l);
	/* told */
	unsigned n_up, n_down, n_frames, n_failed;
	struct link *last;
	enum link_kind last_kind;
	int down_rc, failed_rc;
	char down_why[256], failed_why[256], failed_name[80];
	uid_t uid;
	uint64_t next_tag; /* posts must come with 1, 2, 3... */
	bool disorder;
	bool closed;
};

struct town {
	uv_loop_t loop;
	struct key *root_key;
	struct buf root;
	struct node nodes[TOWN_NODES];
	size_t n_nodes;
};

void town_init(struct town *t);
void town_fini(struct town *t); /* closes what is open; fails when handles are left */
struct node *town_node(struct town *t, const char *name); /* certified, not yet open */
void node_open(struct node *n);                           /* listens, links_new */
void node_close(struct node *n); /* and waits; it may be opened again */
struct node *town_kernel(struct town *t, const char *name); /* both */
/* A town of host0 and host1, of which the first n_open are open. */
void town_pair(struct town *t, struct node **a, struct node **b, int n_open);
struct signer *town_signer(struct town *t, enum cert_kind kind, const char *name);

/* Turn the loop until *done, at most 5 s; fails then. */
#define town_until(t, cond)                                                                    \
	do {                                                                                   \
		int64_t until_ = clock_ms() + 5000;                                            \
		while (!(cond)) {                                                              \
			if (clock_ms() >= until_)                                              \
				fail_msg("not within 5 s: %s", #cond);                         \
			town_turn(t);                                                          \
		}                                                                              \
	} while (0)
void town_turn(struct town *t);
void town_for(struct town *t, int64_t ms);

int post(struct link *l, uint64_t tag, size_t bytes); /* link_send of a post */
bool linked(struct node *a, struct node *b);

/* A peer that does what it is told. */
struct raw {
	struct town *town;
	struct conn *conn;
	struct tls_session *tls; /* NULL: plain */
	struct tls_context *context;
	struct frame_reader in;
	bool connected, closed;
	bool got_hello, got_bye;
	int bye_rc;
	unsigned n_posts, n_pings;
	bool answer_pings;
};
extern const struct conn_callbacks raw_callbacks;
void raw_dial(struct town *t, struct raw *r, uint16_t port, struct tls_context *tls);
/* Wait for one connection on a fresh port and be its TLS server. */
struct raw_listener {
	struct raw *raw;
	uv_tcp_t tcp;
	uint16_t port;
	bool closed;
};
void raw_listen(
	struct town *t, struct raw_listener *rl, struct raw *r, struct tls_context *tls);
void raw_listener_close(struct raw_listener *rl);
void raw_send(struct raw *r, const void *p, size_t n);
void raw_hello(struct raw *r, struct node *like,
	uint64_t boot_count); /* hello and credit as `like` would say them */
/* Dial `to` as `like`, say hello, and wait until the link is up on both sides. */
void raw_join(struct raw *r, struct node *to, struct node *like, uint64_t boot_count);
void raw_post(struct raw *r, uint64_t tag);
void raw_close(struct raw *r);
/* A socket that listens on a port of its own and takes nobody; the caller closes it. */
int silent_listener(uint16_t *port);
