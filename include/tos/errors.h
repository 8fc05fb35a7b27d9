/*
 * The codes of what failed, as calls, answers and `tos_fail` have them: 0 is well, these are
 * negative. Their numbers are fixed; their words and what to do about each are in doc/errors.md.
 */
#pragma once

enum tos_error {
	TOS_ERR_NO_INBOX = -1,     /* nobody reads an inbox of that name */
	TOS_ERR_DENIED = -2,       /* the firewall does not allow it */
	TOS_ERR_FULL = -3,         /* the queue is at its bound */
	TOS_ERR_UNREACHABLE = -4,  /* no link to that kernel could be made */
	TOS_ERR_EXPIRED = -5,      /* the deadline, certificate or ticket has passed */
	TOS_ERR_TOO_LARGE = -6,    /* larger than the limit allows */
	TOS_ERR_MOVED = -7,        /* the carrier has moved on */
	TOS_ERR_MALFORMED = -8,    /* the bytes do not follow the format */
	TOS_ERR_UNKNOWN = -9,      /* the answer was lost; it may or may not have happened */
	TOS_ERR_NOMEM = -10,       /* out of memory */
	TOS_ERR_LIMIT = -11,       /* a limit of the carrier or of the host is reached */
	TOS_ERR_STATE = -12,       /* not possible in the present state */
	TOS_ERR_EXISTS = -13,      /* the name is taken */
	TOS_ERR_NOT_FOUND = -14,   /* there is nothing of that name */
	TOS_ERR_SIGNATURE = -15,   /* the signature does not match */
	TOS_ERR_UNTRUSTED = -16,   /* the certificate does not lead to this domain's root */
	TOS_ERR_REVOKED = -17,     /* the certificate has been revoked */
	TOS_ERR_NOT_YET = -18,     /* valid only from a later time on; check the clocks */
	TOS_ERR_REPLAY = -19,      /* already used */
	TOS_ERR_SUPERSEDED = -20,  /* a higher incarnation is known */
	TOS_ERR_TIMEOUT = -21,     /* no answer within the time */
	TOS_ERR_VERSION = -22,     /* the protocol versions have none in common */
	TOS_ERR_IO = -23,          /* the operating system reported an error */
	TOS_ERR_STORE = -24,       /* the store could not be read or written */
	TOS_ERR_CONFIG = -25,      /* the configuration is wrong */
	TOS_ERR_USAGE = -26,       /* wrong arguments */
	TOS_ERR_CANCELLED = -27,   /* given up before it was done */
	TOS_ERR_SANDBOX = -28,     /* the sandbox could not be built */
	TOS_ERR_FAULT = -29,       /* the carrier failed */
	TOS_ERR_REFUSED = -30,     /* the other side refused */
	TOS_ERR_DIVERGED = -31,    /* the same request number came with another content */
	TOS_ERR_IN_DOUBT = -32,    /* the copy may live elsewhere */
	TOS_ERR_CLOSED = -33,      /* the connection was closed */
	TOS_ERR_UNSUPPORTED = -34, /* this kernel does not offer it */
	TOS_ERR_SYNTAX = -35,      /* the text does not parse */
	TOS_ERR_NAME = -36,        /* not a valid name */
	TOS_ERR_AGAIN = -37,       /* more is needed; not a failure */
	TOS_ERR_CLONE = -38,       /* another kernel runs with this one's name and key */
	TOS_ERR_DIGEST = -39,      /* the bytes are not those of the digest */
	TOS_ERR_COMMITTED = -40,   /* the transaction was committed */
	TOS_ERR_ABORTED = -41,     /* the transaction was aborted */
};
