/* Connections of extensions in Lua: tos.connect, tos.accept, and the object they give. */
#pragma once

struct lua_State;

/* Adds its functions to the table on top of the stack. May raise. L is the main state. */
void script_net_open(struct lua_State *L);
/* Sends what the system takes at once, and closes all. */
void script_net_stop(void);
