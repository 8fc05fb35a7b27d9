/*
 * One transaction among carriers (doc/protocol.md, "Commit"), as extensions/commit does it. README.md
 * says what is in it and how it is run.
 *
 * The coordinator and each participant's kernel have a memory, lost by a crash, and a journal. A row
 * is written in two steps: given to the journal, and on the disk; a crash between them loses it. The
 * net keeps what was sent: a message may come late, again, or never; a call that fails is made again.
 */

#ifndef PARTS
#define PARTS 2
#endif
#ifndef CRASHES
#define CRASHES 2 /* of the coordinator's kernel and of those of the participants, together */
#endif
#ifndef RESTORES
#define RESTORES 0 /* the coordinator's store is put back to what it was before the decision */
#endif

/* ---- the coordinator: struct tx */
mtype = { T_OPEN, T_ASKING, T_DECIDING, T_COMMITTED, T_ABORTED, T_DOUBT, T_FORGOTTEN };
mtype tx = T_OPEN;
bool c_up = true;
bool c_row_committed = false; /* on the disk */
bool c_row = true;            /* there is one, else it was forgotten */
bool restored = false;        /* and it knows: the Journal's restored_ms */
byte voted = 0;               /* bit i: a yes has come */
byte told = 0;                /* bit i: DECIDE was answered */
byte kept = 0;                /* bit i: it has the decision on its disk */
bool was_committed = false;   /* the commit was on the disk once: it must be the outcome */

/* ---- a participant: struct part */
mtype = { P_JOINED, P_ASKED, P_VOTING, P_PREPARED, P_COMMITTED, P_ABORTED };
mtype part[PARTS];
bool p_up[PARTS];
mtype = { ROW_NONE, ROW_PREPARED, ROW_COMMITTED, ROW_ABORTED };
mtype row[PARTS];

/* ---- what a carrier has done */
mtype = { NOTHING, COMMITTED, ABORTED };
mtype acted[PARTS];

/* ---- the net: what was ever sent */
byte polled = 0;    /* POLL to i */
byte yes = 0;       /* its answer, from i */
byte no = 0;
byte commits = 0;   /* DECIDE commit to i */
byte aborts = 0;    /* DECIDE abort to i */
byte heard = 0;     /* its answer: it knows */
byte acked = 0;     /* its answer, or ENDED: it has it on its disk */
byte outcome_commit = 0, outcome_abort = 0; /* answers to OUTCOME */

byte crashes = CRASHES, restores = RESTORES;

#define bit(i) (1 << (i))
#define all    (bit(PARTS) - 1)

inline act(i, what)
{
	acted[i] = what;
	assert(!(acted[0] == COMMITTED && acted[1] == ABORTED));
	assert(!(acted[0] == ABORTED && acted[1] == COMMITTED));
#if PARTS > 2
	assert(!(acted[2] == COMMITTED && (acted[0] == ABORTED || acted[1] == ABORTED)));
	assert(!(acted[2] == ABORTED && (acted[0] == COMMITTED || acted[1] == COMMITTED)));
#endif
}

/* abort_tx(): nothing has to be written */
inline abort_tx()
{
	tx = T_ABORTED;
	aborts = all
}

proctype coordinator()
{
	byte i = 0;
end:
	do
	/* poll() */
	:: d_step { c_up && tx == T_OPEN -> tx = T_ASKING; polled = all }
	/* on_polled() */
	:: d_step { c_up && tx == T_ASKING && (yes & (all - voted)) != 0 -> voted = voted | yes }
	:: d_step { c_up && tx == T_ASKING && no != 0 -> abort_tx() }
	/* late(): the deadline, at any time */
	:: d_step { c_up && (tx == T_OPEN || tx == T_ASKING) -> abort_tx() }
	/* commit_write() */
	:: d_step { c_up && tx == T_ASKING && voted == all -> tx = T_DECIDING;
#ifdef BREAK_DECIDE_FIRST
		commits = all
#endif
		}
	/* on_committed() */
	:: d_step { c_up && tx == T_DECIDING -> c_row_committed = true; was_committed = true;
		tx = T_COMMITTED; commits = all }
	/* the journal refuses, for sure: not_written() */
	:: d_step { c_up && tx == T_DECIDING -> abort_tx() }
	/* on_told(): from told == all on COMMIT is answered */
	:: d_step { c_up && tx == T_COMMITTED && ((heard | acked) & (all - told)) != 0 ->
		told = told | heard | acked }
	/* on_told(), tx_ended(), settle() */
	:: d_step { c_up && tx == T_COMMITTED && (acked & (all - kept)) != 0 -> kept = kept | acked }
	/* keep/ms is over */
#ifdef BREAK_FORGET_HEARD
	:: d_step { c_up && tx == T_COMMITTED && told == all -> tx = T_FORGOTTEN; c_row = false;
		c_row_committed = false }
#else
	:: d_step { c_up && tx == T_COMMITTED && kept == all -> tx = T_FORGOTTEN; c_row = false;
		c_row_committed = false }
#endif
	:: d_step { c_up && tx == T_ABORTED -> tx = T_FORGOTTEN; c_row = false }
	/* tx_outcome(), on_restored() */
	:: d_step { c_up && tx == T_COMMITTED -> outcome_commit = all }
	:: d_step { c_up && tx == T_ABORTED -> outcome_abort = all }
	:: d_step { c_up && tx == T_FORGOTTEN && !restored ->
#ifdef BREAK_PRESUME_COMMIT
		outcome_commit = all
#else
		outcome_abort = all
#endif
		}
	/* a crash; tx_load() */
	:: d_step { c_up && crashes > 0 -> crashes--; c_up = false; voted = 0; told = 0;
		kept = 0 }
	:: d_step { !c_up && restores > 0 -> restores--; restored = true; c_row = true;
		c_row_committed = false }
	:: d_step { !c_up -> c_up = true;
		if
		:: c_row_committed -> tx = T_COMMITTED; commits = all
		:: !c_row_committed && !c_row -> tx = T_FORGOTTEN
#ifdef BREAK_RESTORED_PRESUMES
		:: !c_row_committed && c_row -> abort_tx()
#else
		:: !c_row_committed && c_row && !restored -> abort_tx()
		:: !c_row_committed && c_row && restored -> tx = T_DOUBT
#endif
		fi }
	od
}

proctype participant(byte i)
{
end:
	do
	/* part_poll() */
	:: d_step { p_up[i] && part[i] == P_JOINED && (polled & bit(i)) -> part[i] = P_ASKED }
	/* part_vote(), part_vote_write() */
	:: d_step { p_up[i] && part[i] == P_ASKED -> part[i] = P_VOTING;
#ifdef BREAK_VOTE_FIRST
		yes = yes | bit(i)
#endif
		}
	/* on_voted() */
	:: d_step { p_up[i] && part[i] == P_VOTING -> row[i] = ROW_PREPARED; part[i] = P_PREPARED;
		yes = yes | bit(i) }
	/* it votes no, or the deadline comes before its vote, or its vote can't be written: part_abort() */
	:: d_step { p_up[i] && (part[i] == P_JOINED || part[i] == P_ASKED || part[i] == P_VOTING) ->
		part[i] = P_ABORTED; no = no | bit(i) }
#ifdef BREAK_GIVES_UP
	:: d_step { p_up[i] && part[i] == P_PREPARED -> part[i] = P_ABORTED; row[i] = ROW_ABORTED }
#endif
	/* part_decide(), decided(): the row comes later */
	:: d_step { p_up[i] && part[i] == P_PREPARED && (commits & bit(i)) -> part[i] = P_COMMITTED;
		heard = heard | bit(i);
#ifdef BREAK_ACK_FIRST
		acked = acked | bit(i)
#endif
		}
	:: d_step { p_up[i] && part[i] == P_PREPARED && (aborts & bit(i)) -> part[i] = P_ABORTED }
	:: d_step { p_up[i] && (part[i] == P_JOINED || part[i] == P_ASKED) && (aborts & bit(i)) ->
		part[i] = P_ABORTED }
	/* on_outcome() */
	:: d_step { p_up[i] && part[i] == P_PREPARED && (outcome_commit & bit(i)) ->
		part[i] = P_COMMITTED }
	:: d_step { p_up[i] && part[i] == P_PREPARED && (outcome_abort & bit(i)) ->
		part[i] = P_ABORTED }
	/* on_kept(), on_done(): when the carrier has acted, or some time after the decision. To acknowledge
	 * it is another step: told again, or part_end_say() */
	:: d_step { p_up[i] && part[i] == P_COMMITTED && row[i] == ROW_PREPARED -> row[i] = ROW_COMMITTED }
	:: d_step { p_up[i] && part[i] == P_ABORTED && row[i] == ROW_PREPARED -> row[i] = ROW_ABORTED }
	:: d_step { p_up[i] && part[i] == P_COMMITTED && row[i] == ROW_COMMITTED && !(acked & bit(i)) ->
		acked = acked | bit(i) }
	/* a commit is told where no yes is known: NOT_FOUND, and the coordinator notes it as lost */
	:: d_step { p_up[i] && part[i] == P_ABORTED && row[i] == ROW_NONE && (commits & bit(i)) &&
		!(acked & bit(i)) -> acked = acked | bit(i) }
	/* tell(), part_done() */
	:: d_step { p_up[i] && part[i] == P_COMMITTED && acted[i] != COMMITTED -> act(i, COMMITTED) }
	:: d_step { p_up[i] && part[i] == P_ABORTED && acted[i] != ABORTED -> act(i, ABORTED) }
	/* a crash; part_load(). Without a row its carrier joins again (part_join()), or finds it over */
	:: d_step { p_up[i] && crashes > 0 -> crashes--; p_up[i] = false }
	:: d_step { !p_up[i] -> p_up[i] = true;
		if
		:: row[i] == ROW_PREPARED -> part[i] = P_PREPARED
		:: row[i] == ROW_COMMITTED -> part[i] = P_COMMITTED
		:: row[i] == ROW_ABORTED -> part[i] = P_ABORTED
		:: row[i] == ROW_NONE && (tx == T_OPEN || tx == T_ASKING) && c_up ->
			part[i] = P_JOINED; acted[i] = NOTHING /* it prepares anew */
		:: row[i] == ROW_NONE -> part[i] = P_ABORTED
		fi }
	od
}

/* Nothing more can happen: everybody is up and knows how it ended, unless a store was restored. */
proctype rest()
{
	byte i = 0;

	timeout ->
	d_step {
		assert(c_up);
		do
		:: i < PARTS ->
			assert(p_up[i]);
			assert(restored || part[i] == P_COMMITTED || part[i] == P_ABORTED);
			/* a commit that was on the disk is the outcome */
			assert(restored || was_committed == (part[i] == P_COMMITTED));
			i++
		:: else -> break
		od
	}
}

init
{
	byte i = 0;

	atomic {
		do
		:: i < PARTS -> part[i] = P_JOINED; row[i] = ROW_NONE; acted[i] = NOTHING; p_up[i] = true;
			i++
		:: else -> break
		od;
		i = 0;
		do
		:: i < PARTS -> run participant(i); i++
		:: else -> break
		od;
		run coordinator();
		run rest()
	}
}
