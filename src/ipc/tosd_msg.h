/*
 * Messages between tosd and tos-kernel: fixed-size structs over SOCK_SEQPACKET on the kernel's
 * descriptor 3, each with version and length first, descriptors by SCM_RIGHTS. Both ends are
 * built together; a message with another version or length, or not in the receiver's table,
 * ends its sender.
 */
#pragma once

#include <stdint.h>

#define TOSD_MSG_VERSION 1
#define TOSD_NAME_BYTES  64
#define TOSD_PATH_BYTES  512
#define TOSD_TEXT_BYTES  256
#define TOSD_LAYERS_MAX  24
#define TOSD_LISTEN_MAX  8
#define TOSD_EXT_MAX     16
/* Extensions that came at run time: `ext` of their spawn is from TOSD_EXT_MAX on. */
#define TOSD_EXT_INSTALLED 15
#define TOSD_LIBRARY_BYTES (8u << 20)

struct tosd_head {
	uint16_t version;
	uint16_t type;   /* enum tosd_type */
	uint32_t length; /* of the whole message */
};

enum tosd_type {
	/* kernel -> tosd */
	/* struct tosd_spawn, of an installed extension with its library; answered by SPAWNED or
	 * FAILED, then later DIED */
	TOSD_SPAWN = 1,
	TOSD_SIGNAL,       /* struct tosd_signal */
	TOSD_KERNEL_READY, /* struct tosd_simple: serving now; tosd tells systemd */
	TOSD_RELOAD,       /* struct tosd_simple: have the configuration checked; RELOADED */
	/* struct tosd_spawn_program; fds: the program, open for reading; answered by
	 * PROGRAM_SPAWNED or FAILED, then later DIED */
	TOSD_SPAWN_PROGRAM,
	/* struct tosd_action_ask: run a named action; answered by ACTION_ENDED, always */
	TOSD_ACTION_ASK,
	/* tosd -> kernel */
	/* struct tosd_config_msg: first message; fds: listeners in order, then the state
	 * directory */
	TOSD_CONFIG = 64,
	TOSD_LAYERS, /* struct tosd_layers */
	/* struct tosd_spawned; fds: our end of its descriptor 3, its pidfd */
	TOSD_SPAWNED,
	TOSD_FAILED, /* struct tosd_failed */
	TOSD_DIED,   /* struct tosd_died */
	TOSD_STOP,   /* struct tosd_simple: finish cleanly; the kernel exits 0 */
	/* struct tosd_spawned; fds: our ends of its stdin, stdout, stderr; its pidfd */
	TOSD_PROGRAM_SPAWNED,
	/* struct tosd_kept: a program that outlived an earlier kernel; fds as PROGRAM_SPAWNED */
	TOSD_PROGRAM_KEPT,
	TOSD_RELOADED,     /* struct tosd_reloaded: asked for, or on SIGHUP */
	TOSD_ACTION_ENDED, /* struct tosd_action_ended */
};

/* How tos-kernel ends. Any other status or a signal: it is started again, with back-off. */
enum tosd_kernel_exit {
	TOSD_EXIT_DONE = 0, /* after TOSD_STOP */
	/* configuration or store is broken, a restart would not help: tosd exits 1 */
	TOSD_EXIT_BROKEN = 78,
};

enum tosd_kind { TOSD_VM = 1, TOSD_EXT = 2, TOSD_PROGRAM = 3 };
enum tosd_signal_what {
	TOSD_KILL = 1,
	TOSD_FREEZE = 2,
	TOSD_THAW = 3,
	/* programs that stay: tosd's copy of its stdin is closed */
	TOSD_PROGRAM_INPUT_ENDS = 999,
	/* programs: the signal's number is added to this */
	TOSD_PROGRAM_SIGNAL = 1000,
};
enum tosd_cause {
	TOSD_EXITED = 1,
	TOSD_SIGNALLED,
	TOSD_SECCOMP,
	TOSD_CPU_LIMIT,
	TOSD_MEMORY_LIMIT,
	TOSD_KILLED
};

struct tosd_simple {
	struct tosd_head head;
	uint64_t slot;
};
struct tosd_spawn {
	struct tosd_head head;
	/* the kernel's number for the child; never used twice in one boot */
	uint64_t slot;
	uint32_t kind; /* enum tosd_kind */
	/* TOSD_EXT: index into the configuration's table of isolated extensions; or, with a sealed
	 * memfd that is its library, TOSD_EXT_MAX and a number below TOSD_EXT_INSTALLED, by which
	 * it gets its uid */
	uint32_t ext;
	uint32_t privileges,
		pad; /* of an installed one: bits, of those that the configuration has */
	uint64_t address_bytes;      /* RLIMIT_AS; 0: the configuration's */
	uint32_t cpu_s;              /* RLIMIT_CPU; 0: none */
	char label[TOSD_NAME_BYTES]; /* for ps and logs */
};
/* A program to run in a sandbox of its own. Text is arguments, then environment, each with a NUL
 * behind it. */
#define TOSD_PROGRAMS 256 /* at a time, at the most */
/* Of all kinds. While they are that many tosd reads nothing, not even that one is to be ended: tos-kernel
 * asks for fewer. */
#define TOSD_CHILDREN     4096
#define TOSD_ARGS_MAX     512 /* of arguments and environment, each */
#define TOSD_ARGS_BYTES   16384
#define TOSD_COOKIE_BYTES 1024
struct tosd_spawn_program {
	struct tosd_head head;
	uint64_t slot; /* as of struct tosd_spawn; has the highest bit set */
	uint64_t data_bytes, address_bytes, file_bytes, scratch_bytes;
	uint32_t cpu_s, processes, files;
	uint32_t stays;   /* it is kept when the kernel dies */
	uint32_t network; /* it has the host's */
	uint32_t n_args, n_env, n_text;
	uint32_t n_cookie;
	char label[TOSD_NAME_BYTES];
	char path[TOSD_PATH_BYTES];        /* where it lies, or "" */
	uint8_t cookie[TOSD_COOKIE_BYTES]; /* comes back with PROGRAM_KEPT */
	char text[TOSD_ARGS_BYTES];
};
struct tosd_kept {
	struct tosd_head head;
	uint64_t slot;
	int32_t pid;
	uint32_t n_cookie;
	uint8_t cookie[TOSD_COOKIE_BYTES];
};
struct tosd_signal {
	struct tosd_head head;
	uint64_t slot;
	uint32_t what;
	uint32_t pad;
};
struct tosd_spawned {
	struct tosd_head head;
	uint64_t slot;
	int32_t pid;
	uint32_t pad;
};
struct tosd_failed {
	struct tosd_head head;
	uint64_t slot;
	int32_t rc; /* enum err */
	uint32_t pad;
	char text[TOSD_TEXT_BYTES];
};
/* The configuration was checked; it is the kernel that reads it again. */
struct tosd_reloaded {
	struct tosd_head head;
	int32_t rc; /* enum err; negative: it is broken */
	uint32_t pad;
	char text[TOSD_TEXT_BYTES];
};
struct tosd_died {
	struct tosd_head head;
	uint64_t slot;
	uint32_t cause; /* enum tosd_cause */
	int32_t status; /* exit status or signal */
	uint64_t cpu_us, peak_bytes;
};

/* One layer of the sandbox: what was tried, and what came of it. */
struct tosd_layer {
	char name[24];  /* "user-namespace", "landlock", "seccomp", ... */
	char state[12]; /* "on", "off", "degraded" */
	char reason[120];
};
struct tosd_layers {
	struct tosd_head head;
	char level[16]; /* "full", "reduced", "none" */
	uint32_t n, pad;
	struct tosd_layer layer[TOSD_LAYERS_MAX];
};

/* Named actions: see action.h. */
#define TOSD_ACTIONS_MAX   32
#define TOSD_ACTION_ARGS   8
#define TOSD_ACTION_WORDS  32  /* the program and its arguments */
#define TOSD_ACTION_TEXT   768 /* of all of them, a NUL behind each */
#define TOSD_ACTION_VALUE  72  /* a value, its NUL included */
#define TOSD_ACTION_MS_MIN 100
#define TOSD_ACTION_MS_MAX 600000
#define TOSD_ACTION_OUTPUT 4096 /* kept of each stream */
#define TOSD_ACTIONS_ASKED 32   /* at once, those that wait included; more is out of protocol */
struct tosd_action {
	char name[TOSD_NAME_BYTES];
	uint32_t n_words, n_text, n_args, timeout_ms;
	char text[TOSD_ACTION_TEXT];
	struct {
		char name[28];
		uint32_t kind; /* enum action_kind */
	} arg[TOSD_ACTION_ARGS];
};
/* Only what is to be done: how stands in the table that tosd has. */
struct tosd_action_ask {
	struct tosd_head head;
	uint64_t slot;      /* as of struct tosd_spawn */
	uint32_t within_ms; /* to begin: later nobody waits for it any more */
	uint32_t n_values;
	char name[TOSD_NAME_BYTES];
	char value[TOSD_ACTION_ARGS][TOSD_ACTION_VALUE];
};
struct tosd_action_ended {
	struct tosd_head head;
	uint64_t slot;
	int32_t rc;     /* enum err; negative: it was not run, text says why */
	int32_t status; /* as by waitpid() */
	uint32_t timed_out, ran_ms;
	uint32_t n[2];   /* of stdout, stderr */
	uint64_t cut[2]; /* bytes beyond what is kept */
	char text[TOSD_TEXT_BYTES];
	char output[2][TOSD_ACTION_OUTPUT];
};

/* What an extension may have of the host's files, if it has the privilege. */
#define TOSD_FILE_BYTES      ((uint64_t)64 << 20) /* of file_bytes, where nothing is said */
#define TOSD_DIRECTORY_BYTES 256
struct tosd_grant {
	char name[TOSD_NAME_BYTES];
	char directory[TOSD_DIRECTORY_BYTES]; /* "": one of its own below the state directory */
	uint32_t read_only, pad;
	uint64_t file_bytes; /* of each file */
};

/* What tosd needs of the configuration; tos-kernel --check-config writes one to descriptor 3
 * and, in its normalised text form, the whole configuration to standard output. */
struct tosd_config {
	uint32_t version, length;
	char name[TOSD_NAME_BYTES];
	char state_dir[TOSD_PATH_BYTES]; /* absolute */
	uint32_t n_listen;
	uint32_t uid_base;                             /* 0: chosen by default */
	char listen[TOSD_LISTEN_MAX][TOSD_NAME_BYTES]; /* "127.0.0.1:21212", "[::1]:21212" */
	uint32_t n_require;
	uint32_t n_ext;      /* isolated extensions */
	char require[8][24]; /* layers without which nothing starts */
	struct {
		char name[TOSD_NAME_BYTES];
		char path[TOSD_PATH_BYTES]; /* the shared object */
		char privileges[128];       /* as granted by the configuration */
		struct tosd_grant grant;
	} ext[TOSD_EXT_MAX];
	uint32_t n_installed,
		pad_installed; /* grants to extensions that are installed, by their names */
	struct tosd_grant installed[TOSD_EXT_INSTALLED];
	char installed_privileges[128]; /* the most that installed extensions get */
	uint64_t vm_address_bytes;
	uint32_t n_actions, pad;
	struct tosd_action action[TOSD_ACTIONS_MAX];
	char log_level[12];
	uint32_t log_json;
	uint32_t
		restart_ms; /* longest pause before a process is started again; 0: as by default */
	uint32_t test_no_userns; /* tests: behave as if the layer were missing */
};
struct tosd_config_msg {
	struct tosd_head head;
	uint64_t boot_nonce_hint;
	uint32_t n_listen, as_root;
	/* where local clients connect, as seen from outside */
	char socket_path[TOSD_PATH_BYTES];
	/* the state directory as the kernel sees it; its files are its own */
	char state_path[TOSD_PATH_BYTES];
	uint32_t owner_uid; /* of the state directory */
	uint32_t restarts;  /* how often tosd has started this kernel again */
	char libexec[TOSD_PATH_BYTES], extensions[TOSD_PATH_BYTES];
};
