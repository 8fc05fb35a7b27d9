/* A shared object that an isolated process loads in the tests of tosd. */
int probe_library(void);
__attribute__((visibility("default"))) int probe_library(void)
{
	return 42;
}
