/* Ctrl-C where it detaches instead of ending the command. */
#include <signal.h>
#include <string.h>

#include "cli/cli.h"

static volatile sig_atomic_t caught;

static void on_interrupt(int sig)
{
	(void)sig;
	caught = 1;
}

void interrupt_catch(void)
{
	struct sigaction sa;

	memset(&sa, 0, sizeof(sa));
	sa.sa_handler = on_interrupt;
	sigaction(SIGINT, &sa, NULL);
}

bool interrupted(void)
{
	return caught != 0;
}
