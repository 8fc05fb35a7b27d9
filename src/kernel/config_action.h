/* Sections `action` of the configuration, for config.c and config_take.c alone. */
#pragma once

#include <confuse.h>

#include "kernel/config.h"

int config_actions_fill(cfg_t *cfg, struct config *c, struct errmsg *em);
void config_actions_print(const struct config *c, struct buf *out);
void config_actions_take(
	struct config *now, const struct config *fresh, config_change_fn *fn, void *arg);

/* config.c: a section's title as it may stand in a message. */
const char *config_title(const char *title, char out[68]);
/* config_print.c: as the configuration has a text. */
void config_quoted(struct buf *out, const char *s);
