/*
 * Launches a carrier into the network: wrap it in a shell, set its path, sign, send it off.
 * Usage: launch FILE.lua [PATH]; $TOS_HOME says whose kernels and whose key.
 */
#include <stdio.h>

#include <tos/tos.h>

int main(int argc, char **argv)
{
	struct tos_error err = { "" };
	struct tos_principal *me = NULL;
	struct tos_connection *home = NULL;
	struct tos_shell *sh = NULL;
	char name[129];
	int rc = tos_shell_file(argc > 1 ? argv[1] : "hello.lua", &sh, &err);

	if (rc == 0)
		rc = tos_shell_path(sh, argc > 2 ? argv[2] : "host0,host1,host2", &err);
	if (rc == 0)
		rc = tos_principal_load(NULL, NULL, &me, &err);
	if (rc == 0)
		rc = tos_shell_sign(sh, me, &err);
	if (rc == 0)
		rc = tos_connect(NULL, NULL, 5000, &home, &err);
	if (rc == 0)
		rc = tos_shell_launch(sh, home, me, name, &err);
	if (rc == 0)
		puts(name);
	else
		fprintf(stderr, "launch: %s: %s\n", tos_error_word(rc), err.text);
	tos_disconnect(home);
	tos_principal_free(me);
	tos_shell_free(sh);
	return rc < 0;
}
