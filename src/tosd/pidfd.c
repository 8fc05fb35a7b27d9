/* tosd's children by descriptors that stand for them, which no number that was given again can mistake. See tosd.h. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "tosd/tosd.h"

#ifdef TOS_VALGRIND
/* It knows neither pidfd_open nor pidfd_send_signal, but lets clone pass. A child made by the bare call is of no use to a
 * libc that remembers who it is; nothing here asks it. */
pid_t pidfd_fork(int *pidfd)
{
	*pidfd = -1;
	return (pid_t)syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, NULL, pidfd, NULL, NULL);
}

int pidfd_signal(int pidfd, int sig)
{
	char path[64], line[128];
	int pid = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "Pid: %d", &pid) == 1)
			break;
	if (f)
		fclose(f);
	return pid > 0 ? kill(pid, sig) : -1;
}
#else
pid_t pidfd_fork(int *pidfd)
{
	pid_t pid = fork();

	if (pid <= 0)
		return pid;
	*pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (*pidfd >= 0)
		return pid;
	int why = errno;

	kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	errno = why;
	return -1;
}

int pidfd_signal(int pidfd, int sig)
{
	return (int)syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, 0);
}
#endif
