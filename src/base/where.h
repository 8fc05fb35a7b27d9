/*
 * Where our own files are, found relative to the running executable: installed
 * (PREFIX/{bin,sbin,libexec/tos,lib/tos/extensions,share/tos/carriers}) or in the build tree.
 */
#pragma once

#include <stddef.h>

/* "tosd", "tos", "tos-kernel", "tos-vm", "tos-ext". Absolute path in out (cap bytes); 0 or
 * ERR_NOT_FOUND. */
int where_program(const char *name, char *out, size_t cap);
/* The shared object of a shipped extension. */
int where_extension(const char *name, char *out, size_t cap);
/* A shipped carrier, "facts" -> .../facts.lua. */
int where_carrier(const char *name, char *out, size_t cap);
/* A shipped library for carriers, "waves" -> .../lib/waves.lua. */
int where_library(const char *name, char *out, size_t cap);
/* The folder with the executable that runs. */
int where_self(char *out, size_t cap);
