/*
 * Programs, as tosd sees them: what was asked for, the ends of their pipes until the kernel has
 * them (and beyond, of those that outlive it), how they ended. The loop that starts and reaps them
 * is in makers.c.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "ipc/ipc.h"
#include "tosd/tosd.h"

static struct program_row rows[TOSD_PROGRAMS];

bool program_valid(const struct tosd_spawn_program *m)
{
	uint32_t ends = 0;

	if (m->n_args < 1 || m->n_args > TOSD_ARGS_MAX || m->n_env > TOSD_ARGS_MAX ||
		m->n_text > sizeof(m->text) || m->n_cookie > sizeof(m->cookie) ||
		!memchr(m->label, 0, sizeof(m->label)) ||
		!memchr(m->path, 0, sizeof(m->path)) || !(m->slot >> 63) || !m->data_bytes ||
		!m->scratch_bytes || !m->processes)
		return false;
	for (uint32_t i = 0; i < m->n_text; i++)
		ends += m->text[i] == 0;
	return ends == m->n_args + m->n_env && m->text[m->n_text - 1] == 0;
}

struct program_row *program_take(const struct tosd_spawn_program *m, int fd)
{
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct program_row *p = &rows[i];

		if (p->used)
			continue;
		p->used = true;
		p->stays = m->stays;
		p->fd[0] = p->fd[1] = p->fd[2] = p->report_fd = -1;
		p->program_fd = fd;
		p->n_cookie = m->n_cookie;
		memcpy(p->cookie, m->cookie, sizeof(p->cookie));
		p->asked = *m;
		return p;
	}
	mem_close(fd);
	return NULL;
}

static void close_one(int *fd)
{
	if (*fd >= 0)
		mem_close(*fd);
	*fd = -1;
}

void program_close(struct program_row *p)
{
	for (size_t i = 0; i < ARRAY_LEN(p->fd); i++)
		close_one(&p->fd[i]);
}

void program_input_ends(struct program_row *p)
{
	if (p)
		close_one(&p->fd[0]);
}

void program_drop(struct program_row *p)
{
	if (!p)
		return;
	program_close(p);
	close_one(&p->report_fd);
	close_one(&p->program_fd);
	p->used = false;
}

int program_launch(struct program_row *p, int launcher_fd, const struct launch_request *r,
	struct errmsg *em)
{
	static struct launch_program m;
	int rc;

	m.request = *r;
	m.request.head =
		(struct tosd_head){ TOSD_MSG_VERSION, LAUNCH_PROGRAM, (uint32_t)sizeof(m) };
	m.program = p->asked;
	rc = ipc_send(launcher_fd, &m, sizeof(m), &p->program_fd, 1, em);
	if (rc == 0)
		close_one(&p->program_fd);
	return rc;
}

void program_started(struct program_row *p, const int fds[PROGRAM_FDS])
{
	memcpy(p->fd, fds, sizeof(p->fd));
	p->report_fd = fds[PROGRAM_FDS - 1];
}

bool program_report(const struct program_row *p, struct sandbox_report *out)
{
	/* Its writer is dead, so this waits for nobody. */
	return p->report_fd >= 0 &&
	       read(p->report_fd, out, sizeof(*out)) == (ssize_t)sizeof(*out) &&
	       out->magic == SANDBOX_REPORT_MAGIC;
}

int program_signal(uint32_t what)
{
	static const int passed[] = { SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2,
		SIGWINCH, SIGCONT, SIGTSTP };

	for (size_t i = 0; i < ARRAY_LEN(passed); i++)
		if (what == TOSD_PROGRAM_SIGNAL + (uint32_t)passed[i])
			return passed[i];
	return 0;
}

uid_t program_uid(const struct tosd *t)
{
	return t->uid_base + TOSD_UIDS_EXT - 1;
}
