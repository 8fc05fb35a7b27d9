/* Launches the same carrier many times over one connection: launch_many FILE.lua N. */
#include <stdio.h>
#include <stdlib.h>

#include <tos/tos.h>

int main(int argc, char **argv)
{
	struct tos_error err = { "" };
	struct tos_principal *me = NULL;
	struct tos_connection *home = NULL;
	struct tos_shell *sh = NULL;
	char name[129];
	int n = argc > 2 ? atoi(argv[2]) : 1, done = 0;
	int rc = tos_shell_file(argc > 1 ? argv[1] : "", &sh, &err);

	if (rc == 0)
		rc = tos_principal_load(NULL, NULL, &me, &err);
	if (rc == 0)
		rc = tos_shell_sign(sh, me, &err);
	if (rc == 0)
		rc = tos_connect(NULL, NULL, 5000, &home, &err);
	for (; rc == 0 && done < n; done++)
		rc = tos_shell_launch(sh, home, me, name, &err);
	if (rc < 0)
		fprintf(stderr, "launch_many: %s: %s\n", tos_error_word(rc), err.text);
	else
		printf("{\"launched\": %d}\n", done);
	tos_disconnect(home);
	tos_principal_free(me);
	tos_shell_free(sh);
	return rc < 0;
}
