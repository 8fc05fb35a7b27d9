/* Values that are set while the kernel runs, and reading the configuration again. */
#pragma once

#include "kernel/kernel.h"

/* ---- settings.c */
/* The configuration's keys as properties. */
int settings_properties(struct kernel *k, struct errmsg *em);
/* What was set before the restart holds again; that of an extension when it is ready. */
int settings_load(struct kernel *k, struct errmsg *em);
/* Of this extension; NULL: of the kernel's own configuration. */
void settings_apply(struct kernel *k, const char *ext);
/* The kernel's own go back to what the file says, before that is compared with another. */
void settings_lift(struct kernel *k);
/* What the configuration says of that extension has changed. */
void settings_configured(struct kernel *k, const struct config_extension *x);
/* Log and clock look at the configuration anew. */
void settings_changed(struct kernel *k);
/* Act `set`: args {value: text}, or {} for what is configured. */
void settings_act(struct kernel *k, struct request *rq, const char *by, const char *path,
	const struct tos_value *args);
/* Adds origin to rows of GET, and says which may be set. */
void settings_describe(const struct kernel *k, struct tos_value *list);

/* ---- reload.c */
void reload_act(struct kernel *k, struct request *rq, const char *by);
/* tosd has had the file checked; rc negative: it is broken, text says why. */
void reload_checked(struct kernel *k, int rc, const char *text);
void reload_tick(struct kernel *k, int64_t now_ms);
