/*
 * A sensor of the doorknob monitor: notices who tries this machine's doors, and says so, a line an attempt, on
 * standard output. It knows one vulnerability only; whoever watches for another one rewrites this file and nothing
 * else. Two kinds are here:
 *
 *   sensor ports PORT...   holds ports on which nothing should be heard (telnet, rsh, an old administration panel)
 *                          and names who knocks. A port that a real service holds is named as exposed.
 *   sensor ping [FILE]     reads a capture (pcap; standard input without FILE) and names who sent an echo request of
 *                          more than 65,507 octets of data, whole or in fragments: the Ping of Death.
 *
 * Lines: "watching WHAT", "exposed WHAT", "attempt SOURCE WHAT". It ends with standard output or on SIGTERM.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORTS_MAX    64
#define PING_DATA    65507u /* the most that an IPv4 datagram of 65,535 octets can hold */
#define PACKET_MAX   262144u
#define IP_MORE      0x2000u
#define IP_OFFSET    0x1fffu
#define ETHER_BYTES  14u
#define ETHERTYPE_IP 0x0800u

static void say(const char *event, const char *source, const char *what)
{
	printf("%s%s%s %s\n", event, *source ? " " : "", source, what);
	if (fflush(stdout) != 0)
		exit(1); /* nobody reads any more */
}

/* ---- ports */

/* A socket for IPv6 takes IPv4 too; where there is no IPv6 it is one for IPv4. */
static int port_listen(uint16_t port)
{
	struct sockaddr_in6 six = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	struct sockaddr_in four = { .sin_family = AF_INET, .sin_port = htons(port) };
	int off = 0, on = 1,
	    fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int rc;

	if (fd >= 0) {
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
		rc = bind(fd, (const struct sockaddr *)&six, sizeof six);
	} else {
		fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		if (fd < 0)
			return -1;
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
		rc = bind(fd, (const struct sockaddr *)&four, sizeof four);
	}
	if (rc == 0 && listen(fd, 64) == 0)
		return fd;
	rc = errno;
	close(fd);
	errno = rc;
	return -1;
}

static void knock_report(int listener, uint16_t port)
{
	struct sockaddr_storage from = { .ss_family = AF_UNSPEC };
	socklen_t n = sizeof from;
	char source[INET6_ADDRSTRLEN] = "?", what[16];
	int fd = accept4(listener, (struct sockaddr *)&from, &n, SOCK_CLOEXEC);
	/* Whoever knocks gets nothing: a reset, and no memory of us. */
	struct linger gone = { .l_onoff = 1 };

	if (fd < 0)
		return; /* it was gone already */
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &gone, sizeof gone);
	close(fd);
	if (from.ss_family == AF_INET6) {
		const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)&from;

		if (IN6_IS_ADDR_V4MAPPED(&six->sin6_addr))
			inet_ntop(AF_INET, &six->sin6_addr.s6_addr[12], source, sizeof source);
		else
			inet_ntop(AF_INET6, &six->sin6_addr, source, sizeof source);
	} else if (from.ss_family == AF_INET) {
		inet_ntop(AF_INET, &((const struct sockaddr_in *)&from)->sin_addr, source,
			sizeof source);
	}
	snprintf(what, sizeof what, "tcp/%u", port);
	say("attempt", source, what);
}

static int watch_ports(int n, char **ports)
{
	struct pollfd p[PORTS_MAX];
	uint16_t number[PORTS_MAX];
	nfds_t n_open = 0;

	for (int i = 0; i < n; i++) {
		char *end;
		unsigned long port = strtoul(ports[i], &end, 10);
		char what[16];
		int fd;

		if (*ports[i] == '\0' || *end != '\0' || port == 0 || port > UINT16_MAX) {
			fprintf(stderr, "sensor: %s is not a port\n", ports[i]);
			return 2;
		}
		snprintf(what, sizeof what, "tcp/%lu", port);
		fd = port_listen((uint16_t)port);
		if (fd < 0 && errno != EADDRINUSE) {
			fprintf(stderr, "sensor: port %lu: %s\n", port, strerror(errno));
			return 1;
		}
		say(fd < 0 ? "exposed" : "watching", "", what);
		if (fd < 0)
			continue;
		p[n_open] = (struct pollfd){ .fd = fd, .events = POLLIN };
		number[n_open++] = (uint16_t)port;
	}
	while (n_open > 0) {
		if (poll(p, n_open, -1) < 0) {
			if (errno == EINTR)
				continue;
			perror("sensor: poll");
			return 1;
		}
		for (nfds_t i = 0; i < n_open; i++)
			if (p[i].revents != 0)
				knock_report(p[i].fd, number[i]);
	}
	fprintf(stderr,
		"sensor: services hold all of these ports; there is nothing left to watch\n");
	return 1;
}

/* ---- ping */

static uint32_t u32_at(const uint8_t *p, bool swap)
{
	uint32_t v;

	memcpy(&v, p, sizeof v);
	return swap ? __builtin_bswap32(v) : v;
}

static uint32_t u16_at(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

/*
 * The end of a datagram's data is known from each fragment by itself: its offset and its length. A fragment that would
 * end beyond what a datagram can hold is the attack; nothing has to be put together, and nothing of it is kept.
 */
static void packet_look(const uint8_t *ip, size_t n)
{
	uint32_t header, total, offset, end;
	char source[INET_ADDRSTRLEN];

	if (n < 20 || ip[0] >> 4 != 4)
		return;
	header = (ip[0] & 15u) * 4u;
	total = u16_at(ip + 2);
	offset = (u16_at(ip + 6) & IP_OFFSET) * 8u;
	if (header < 20 || total < header || ip[9] != IPPROTO_ICMP)
		return;
	/* A reply is not an attack; the type is in the first fragment only, and there it must be 8. */
	if (offset == 0 && (n < header + 1u || ip[header] != 8))
		return;
	end = offset + total - header; /* of the ICMP message, whose own header is 8 octets */
	if (end <= PING_DATA + 8u)
		return;
	inet_ntop(AF_INET, ip + 12, source, sizeof source);
	say("attempt", source, "ping-of-death");
}

static int watch_ping(const char *path)
{
	static uint8_t packet[PACKET_MAX];
	uint8_t head[24], each[16];
	FILE *f = path != NULL ? fopen(path, "rb") : stdin;
	uint32_t magic, link, skip;
	bool swap;

	if (f == NULL) {
		fprintf(stderr, "sensor: %s: %s\n", path, strerror(errno));
		return 1;
	}
	if (fread(head, 1, sizeof head, f) != sizeof head)
		goto malformed;
	memcpy(&magic, head, sizeof magic);
	swap = magic == 0xd4c3b2a1u || magic == 0x4d3cb2a1u;
	if (!swap && magic != 0xa1b2c3d4u && magic != 0xa1b23c4du)
		goto malformed;
	link = u32_at(head + 20, swap);
	if (link != 1 && link != 101) /* Ethernet, raw IP */
		goto malformed;
	skip = link == 1 ? ETHER_BYTES : 0;
	say("watching", "", "ping-of-death");
	while (fread(each, 1, sizeof each, f) == sizeof each) {
		uint32_t n = u32_at(each + 8, swap);

		if (n > sizeof packet || fread(packet, 1, n, f) != n)
			goto malformed;
		if (n >= skip && (skip == 0 || u16_at(packet + 12) == ETHERTYPE_IP))
			packet_look(packet + skip, n - skip);
	}
	if (f != stdin)
		fclose(f);
	return 0;
malformed:
	fprintf(stderr, "sensor: %s is no capture of Ethernet or IP packets (pcap)\n",
		path ? path : "standard input");
	if (f != stdin)
		fclose(f);
	return 1;
}

int main(int argc, char **argv)
{
	if (argc >= 3 && argc - 2 <= PORTS_MAX && strcmp(argv[1], "ports") == 0)
		return watch_ports(argc - 2, argv + 2);
	if ((argc == 2 || argc == 3) && strcmp(argv[1], "ping") == 0)
		return watch_ping(argc == 3 ? argv[2] : NULL);
	fprintf(stderr, "usage: sensor ports PORT... | sensor ping [FILE]\n");
	return 2;
}
