/*
 * A tos-vm from which a carrier can make the process hang, as nothing that is known lets it: its
 * table library has one function more. Everything else of it is the real tos-vm.
 *
 * table.hang("host"): C code of ours that does not come back. The alarm's handler sees it and says STUCK.
 * table.hang("deaf"): besides, the handler sees nothing any more. Only the kernel's look at the clock is left.
 */
#include <lauxlib.h>
#include <string.h>

#include "vm/libs.h"
#include "vm/vm.h"

void __real_lazy_open(lua_State *L);
void __wrap_lazy_open(lua_State *L);

static _Noreturn int hang(lua_State *L)
{
	volatile uint64_t turns = 0;

	vm_sched.host = 1;
	if (strcmp(luaL_checkstring(L, 1), "deaf") == 0)
		vm_sched.running = NULL;
	for (;;)
		turns++;
}

/* tests/proc/meson.build has the linker call this one (--wrap). */
void __wrap_lazy_open(lua_State *L)
{
	__real_lazy_open(L);
	lua_getglobal(L, "table");
	lua_pushcfunction(L, hang);
	lua_setfield(L, -2, "hang");
	lua_pop(L, 1);
}
