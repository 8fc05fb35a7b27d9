/*
 * The hand-off of one carrier (doc/protocol.md, "Hand-off", "In doubt" and "Home"), as
 * src/kernel/{handoff,home}/*.c do it. README.md says what is in it, what
 * is left out and how it is run.
 *
 * Each kernel has a memory, lost by a crash; a journal that is queued, in the order of its
 * transactions; and the part of it that is on the disk. Journal rows have the names of
 * src/store/store.h, calls those of src/kernel/{handoff/arrive,home/home}.c. What is written "awaited" goes on
 * in flush(), as the code does in its commit's callback.
 *
 * The net keeps what was sent: a message may come late, again, after younger ones, or never.
 */

/* ---- bounds, chosen by -D */
#ifndef KERNELS
#define KERNELS 2 /* 2 or 3 */
#endif
#ifndef HOME
#define HOME 0 /* the carrier's home */
#endif
#ifndef START
#define START 0 /* where it is at first; elsewhere than at home, its home handed it over */
#endif
#ifndef DEPARTURES
#define DEPARTURES 2 /* numbers 0 to DEPARTURES - 1 */
#endif
#ifndef RAISES
#define RAISES 1 /* of the incarnation */
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef DECLARATIONS
#define DECLARATIONS 1
#endif
#ifndef ASKS
#define ASKS 1 /* by an operator, with no declaration */
#endif
#ifndef UNSENT
#define UNSENT 1 /* departures whose record never left */
#endif
#ifndef REFUSALS
#define REFUSALS 1 /* by policy */
#endif

#define NN     DEPARTURES
#define EN     ((RAISES + 1) * NN) /* hop records: one for each (e, n) */
#define NOBODY 3

#define x_of(e, n) ((e)*NN + (n))
#define e_of(x)    ((x) / NN)
#define n_of(x)    ((x) % NN)

/* ---- a carrier's copy: struct resident */
#define NONE      0
#define ARRIVING  1 /* journaled, not yet durable: not among the residents */
#define LIVE      2 /* ready, running, suspended */
#define FREEZING  3 /* departing, not yet durable */
#define DEPARTING 4
#define GRANTED   5 /* a grant was taken, not yet durable */
#define ENDING    6 /* at home: its outcome is being journaled */
#define FAULTED   7

typedef Copy {
	unsigned state : 3;
	unsigned e : 2;
	unsigned n : 3; /* the next departure's number */
	unsigned dest : 2;
	bit outcome;
	bit asking;
	/* the last hop record of another kernel in its chain: home_evidence(), came_from() */
	unsigned from : 2;
	unsigned from_e : 2;
	unsigned from_n : 3;
	byte chain /* hop records in it: bit x */
}

typedef Gone {
	bit has;
	unsigned e : 2;
	unsigned n : 3;
	unsigned dest : 2;
	unsigned from : 2
}

/* ---- journals */
#define ACCEPTED 1
#define REFUSED  2

typedef Journal {
	Copy T_RESIDENT;
	Gone T_GONE;
	unsigned T_INCARNATION : 2;
	short T_ANSWER; /* two bits for each hop record */
	byte T_VOID;    /* two bits for each destination: the e */
	byte T_DECLARED;
	short T_OUTBOX  /* a bit for each hop record: GONE, until the home has answered */
}
Journal queued[KERNELS], stored[KERNELS];
bool dirty[KERNELS];

#define answer_in(j, x) ((j.T_ANSWER >> (2 * (x))) & 3)
#define void_in(j, d)   ((j.T_VOID >> (2 * (d))) & 3)

/* ---- the home's record */
#define FINISHED 1
#define LOST     2
typedef Home {
	unsigned state : 2; /* 0: not ended */
	unsigned e : 2;
	unsigned n : 3;
	unsigned kernel : 2;
	unsigned came : 3; /* with which number */
	unsigned from : 2
}
Home home;          /* in memory */
Home T_HOME;        /* queued */
Home T_HOME_stored; /* on the disk */
unsigned denied : 2;    /* how often its place said that it has none */
bool raising, save_due;
unsigned raiser : 2;
unsigned finishing : 4; /* 0, 1 + x of the outcome being journaled, or AT_HOME */
#define AT_HOME (1 + EN)
#define NO_COPY (2 + EN) /* it is lost */

/* ---- memories */
Copy mem[KERNELS];
bool up[KERNELS];
bool sent[KERNELS], doubt[KERNELS];
bool due[KERNELS];               /* a report to the home */
byte known[KERNELS];     /* incarnation_known(): in memory, queued at once */
byte refusing[KERNELS];  /* 0, or 1 + x of a refusal being journaled */
byte voiding[KERNELS];           /* bit d: the VOID from d is acknowledged when durable */

/* ---- the net */
typedef Hop {
	bit sent; /* SEND */
	unsigned src : 2;
	unsigned dest : 2;
	bit outcome;
	unsigned from : 2;
	unsigned from_e : 2;
	unsigned from_n : 3;
	byte chain;
	bit accepted;
	bit refused;
	bit superseded
}
Hop hop[EN];
typedef Report {
	bit has;
	unsigned e : 2;
	unsigned n : 3;
	bit departing;
	bit in_doubt;
	unsigned from : 2;
	unsigned from_e : 2;
	unsigned from_n : 3;
	byte chain
}
Report arrived[KERNELS]; /* ARRIVED on its way */
#define WORD_GRANTED   1
#define WORD_ELSEWHERE 2
#define WORD_DECLINED  3
byte asked[KERNELS];    /* the home's answer to ASK on its way */
byte asked_e[KERNELS];
byte voided[KERNELS];            /* bit d: VOID of this kernel was acknowledged by d */
bool cut[KERNELS];               /* from the home, seen when it is declared dead */

/* ---- what is left of the faults, and what has been */
byte crashes = CRASHES, declarations = DECLARATIONS, asks = ASKS, refusals = REFUSALS, unsent = UNSENT;
bool declaration_made;
bool finished;
unsigned finished_e : 2;

byte i; /* 0 between the steps */


#define here(k)  (mem[k].state >= LIVE)
#define ended    (home.state != 0)
#define linked(k) ((k) == HOME || !cut[k])
/* home_is_declared(): the row counts while the kernel is not linked */
#define declared(d) (((stored[HOME].T_DECLARED >> (d)) & 1) && !(up[d] && linked(d)))

#define PASSES_4(c) (leaves(c, 0) || leaves(c, 1) || leaves(c, 2) || leaves(c, 3))
#if DEPARTURES * (RAISES + 1) == 4
#define passes(c) PASSES_4(c)
#elif DEPARTURES * (RAISES + 1) == 6
#define passes(c) (PASSES_4(c) || leaves(c, 4) || leaves(c, 5))
#else
#define passes(c) (PASSES_4(c) || leaves(c, 4) || leaves(c, 5) || leaves(c, 6) || leaves(c, 7))
#endif

/* ---- evidence.c: r is a report, a hop record or a copy, of incarnation re, that comes from who */
#define leaves(c, x) ((((c) >> (x)) & 1) && hop[x].src == home.kernel && \
			     e_of(x) == home.e && n_of(x) >= home.came)
#define shown(who, r, re) (r.from != NOBODY && r.from != (who) && r.from_e == (re))
/* EVIDENCE_GOOD, with the record by which it came only; and with all of them */
#define good_record(who, r, re) \
	((who) == HOME || home.kernel == (who) || \
		(shown(who, r, re) && (re) == home.e && r.from == home.kernel && \
			r.from_n >= home.came))
#define good(who, r, re) \
	(good_record(who, r, re) || \
		(shown(who, r, re) && (re) == home.e && r.from_n >= home.came && passes(r.chain)))
/* EVIDENCE_GAP */
#define gap(who, r, re) \
	(!good_record(who, r, re) && shown(who, r, re) && (re) == home.e && r.from_n >= home.came)

/* for whoever reads a counterexample */
#define say(text, who) printf(text, who)

/* While a raise of e or an end is being journaled nothing else is decided, and no report is taken. */
#define now_busy (raising || finishing)
#define decides now_busy
#ifndef BREAK_OUTCOME_OVERWRITTEN
#define busy now_busy
#else
#define busy raising
#endif

/* ---- the properties that hold at each step */
inline started(k)
{
	/* never two live copies of one e; two of different e only after a declaration */
	i = 0;
	do
	:: i < KERNELS ->
		if
		:: i != k && up[i] && mem[i].state == LIVE ->
			assert(mem[i].e != mem[k].e);
			assert(declaration_made)
		:: else
		fi;
		i++
	:: else -> break
	od;
	/* a finished carrier never runs again; a lower copy, whose kernel was declared dead, may
	 * until it meets one that knows better */
	assert(!finished || (declaration_made && mem[k].e < finished_e));
	i = 0
}

inline copy_clear(c)
{
	c.state = NONE; c.e = 0; c.n = 0; c.dest = 0; c.outcome = 0; c.asking = 0;
	c.from = 0; c.from_e = 0; c.from_n = 0; c.chain = 0
}

inline copy_set(a, b)
{
	a.state = b.state; a.e = b.e; a.n = b.n; a.dest = b.dest; a.outcome = b.outcome;
	a.asking = b.asking; a.from = b.from; a.from_e = b.from_e; a.from_n = b.from_n;
	a.chain = b.chain
}

inline gone_set(a, b)
{
	a.has = b.has; a.e = b.e; a.n = b.n; a.dest = b.dest; a.from = b.from
}

inline home_set(a, b)
{
	a.state = b.state; a.e = b.e; a.n = b.n; a.kernel = b.kernel; a.came = b.came; a.from = b.from
}

/* resident_put() */
inline resident_put(k, as)
{
	copy_set(queued[k].T_RESIDENT, mem[k]);
	queued[k].T_RESIDENT.state = as;
	dirty[k] = true
}

/* resident_del(), and the copy is no more */
inline resident_drop(k)
{
	copy_clear(mem[k]);
	copy_clear(queued[k].T_RESIDENT);
	sent[k] = false; doubt[k] = false; due[k] = false; asked[k] = 0; asked_e[k] = 0;
	dirty[k] = true
}

/* back from a departure: departure_over() */
inline departure_over(k)
{
	mem[k].state = LIVE; mem[k].dest = 0; mem[k].outcome = 0; mem[k].asking = 0;
	due[k] = true;
	sent[k] = false; doubt[k] = false; asked[k] = 0; asked_e[k] = 0
}

/* the record never left, and its number is given back: departure_undone() */
inline departure_undone(k)
{
	mem[k].n = mem[k].n - 1;
	departure_over(k)
}

/* incarnation_learn(): the journal is not awaited */
inline incarnation_learn(k, value)
{
	if
	:: (value) > known[k] ->
		known[k] = value;
		queued[k].T_INCARNATION = value;
		dirty[k] = true
	:: else
	fi
}

/* home_put(): the row as it will be */
inline home_put()
{
	home_set(T_HOME, home);
	if
	:: raising -> T_HOME.e = home.e + 1
	:: else
	fi;
#ifndef BREAK_OUTCOME_OVERWRITTEN
	if
	:: finishing == NO_COPY -> T_HOME.state = LOST
	:: finishing && finishing != NO_COPY -> T_HOME.state = FINISHED
	:: else
	fi;
#endif
	dirty[HOME] = true
}

inline home_save()
{
	if
	:: raising -> save_due = true
	:: else -> home_put()
	fi
}

inline home_outcome(word)
{
	home.state = word; home.kernel = HOME; denied = 0
}

/* gone_put(), resident_del(), home_report_gone() in one transaction: move_accepted(). It is queued when nobody
 * may write for a while; until it is stored gone_find() reads it from memory, which is what is queued. */
inline move_accepted(k)
{
	queued[k].T_GONE.has = 1;
	queued[k].T_GONE.e = mem[k].e;
	queued[k].T_GONE.n = mem[k].n - 1;
	queued[k].T_GONE.dest = mem[k].dest;
	queued[k].T_GONE.from = mem[k].from;
	if
	:: !mem[k].outcome ->
		queued[k].T_OUTBOX = queued[k].T_OUTBOX | (1 << x_of(mem[k].e, mem[k].n - 1))
	:: else
	fi;
	resident_drop(k)
}

/* ---- the journal is on the disk: the callbacks of all that was awaited */
inline flush(k)
{
	copy_set(stored[k].T_RESIDENT, queued[k].T_RESIDENT);
	gone_set(stored[k].T_GONE, queued[k].T_GONE);
	stored[k].T_INCARNATION = queued[k].T_INCARNATION;
	stored[k].T_ANSWER = queued[k].T_ANSWER;
	stored[k].T_VOID = queued[k].T_VOID;
	stored[k].T_DECLARED = queued[k].T_DECLARED;
	stored[k].T_OUTBOX = queued[k].T_OUTBOX;
	dirty[k] = false;
	if
	:: k == HOME ->
		home_set(T_HOME_stored, T_HOME);
		if
		:: raising -> /* granted() */
			raising = false;
			home.e = home.e + 1;
			incarnation_learn(HOME, home.e);
			asked_e[raiser] = home.e;
			if
			:: ended -> asked[raiser] = WORD_ELSEWHERE
			:: else ->
				asked[raiser] = WORD_GRANTED;
				home.kernel = raiser; home.came = 0; home.from = NOBODY; denied = 0
			fi;
			raiser = 0
		:: else
		fi;
		if
		:: finishing -> /* outcome_taken(), outcome_saved() */
			if
			:: finishing == AT_HOME ->
				finished = true; finished_e = mem[HOME].e;
				copy_clear(mem[HOME]);
				due[HOME] = false;
				home_outcome(FINISHED)
			:: finishing == NO_COPY -> home_outcome(LOST)
			:: else ->
				finished = true; finished_e = e_of(finishing - 1);
				hop[finishing - 1].accepted = 1;
				home_outcome(FINISHED)
			fi;
			finishing = 0
		:: else
		fi
	:: else
	fi;
	if
	:: refusing[k] -> hop[refusing[k] - 1].refused = 1; refusing[k] = 0
	:: else
	fi;
	/* void_saved() */
	i = 0;
	do
	:: i < KERNELS ->
		if
		:: (voiding[k] >> i) & 1 -> voided[i] = voided[i] | (1 << k)
		:: else
		fi;
		i++
	:: else -> break
	od;
	i = 0;
	voiding[k] = 0;
	if
	:: mem[k].state == FREEZING -> mem[k].state = DEPARTING
	:: mem[k].state == ARRIVING -> /* arrival_saved() */
		mem[k].state = LIVE;
		due[k] = true;
		hop[x_of(mem[k].from_e, mem[k].from_n)].accepted = 1;
		started(k)
	:: mem[k].state == GRANTED -> /* grant_saved() */
		incarnation_learn(k, mem[k].e);
		mem[k].state = LIVE;
		due[k] = true;
		started(k)
	:: else
	fi
}

/* ---- the source */

/* freeze(), departing_commit() */
inline depart(k, d)
{
	mem[k].state = FREEZING;
	mem[k].dest = d;
	mem[k].n = mem[k].n + 1;
	resident_put(k, DEPARTING)
}

inline outcome_begin(k)
{
	if
	:: k == HOME && mem[k].e < home.e -> resident_drop(k)
	:: k == HOME && (mem[k].e >= home.e) -> /* outcome_at_home() */
		mem[k].state = ENDING;
		copy_clear(queued[k].T_RESIDENT);
		finishing = AT_HOME;
		home_put();
		T_HOME.state = FINISHED
	:: else ->
		mem[k].outcome = 1;
		depart(k, HOME)
	fi
}

/* send_now(): the hop record goes out */
inline send_now(k, x)
{
	assert(!hop[x].sent || (hop[x].src == k && hop[x].dest == mem[k].dest &&
				       hop[x].outcome == mem[k].outcome));
	hop[x].sent = 1;
	hop[x].src = k; hop[x].dest = mem[k].dest; hop[x].outcome = mem[k].outcome;
	hop[x].from = mem[k].from; hop[x].from_e = mem[k].from_e; hop[x].from_n = mem[k].from_n;
	hop[x].chain = mem[k].chain;
	sent[k] = true;
#ifdef BREAK_DROP_FIRST
	move_accepted(k)
#endif
}

/* move_refused() */
inline move_refused(k)
{
	if
	:: mem[k].outcome -> departure_over(k); mem[k].state = FAULTED; resident_put(k, FAULTED)
	:: else -> departure_over(k); resident_put(k, LIVE); started(k)
	fi
}

/* ---- the destination: send_verb() */
inline arrival_refuse(k, x)
{
	queued[k].T_ANSWER = queued[k].T_ANSWER | (REFUSED << (2 * (x)));
	refusing[k] = 1 + (x);
	dirty[k] = true
}

#define replayed(k, x) \
	((here(k) && mem[k].e == e_of(x) && \
		 ((mem[k].state != DEPARTING && mem[k].state != FREEZING) || n_of(x) < mem[k].n)) || \
		(queued[k].T_GONE.has && queued[k].T_GONE.e == e_of(x) && \
			n_of(x) <= queued[k].T_GONE.n))

/* outcome_of_holder() */
#define outcome_of_holder(x) (home.kernel == hop[x].src || passes(hop[x].chain))

inline arrival_outcome(x)
{
	if
	:: ended || e_of(x) < home.e -> hop[x].superseded = 1
	:: else ->
		if
		:: e_of(x) > home.e || !outcome_of_holder(x) -> arrival_refuse(HOME, x)
		:: else ->
			queued[HOME].T_ANSWER = queued[HOME].T_ANSWER | (ACCEPTED << (2 * (x)));
			finishing = 1 + (x);
			home_put();
			T_HOME.state = FINISHED
		fi
	fi
}

/* home_agrees(): an arrival at its own home */
#define home_objects(k, x) \
	((k) == HOME && !hop[x].outcome && !ended && e_of(x) == home.e && \
		!((hop[x].src == home.kernel && n_of(x) >= home.came) || passes(hop[x].chain)))

inline arrival_journal(k, x)
{
	copy_clear(mem[k]);
	sent[k] = false; doubt[k] = false; due[k] = false; asked[k] = 0; asked_e[k] = 0;
	mem[k].state = ARRIVING;
	mem[k].e = e_of(x);
	mem[k].n = n_of(x) + 1;
	mem[k].from = hop[x].src; mem[k].from_e = e_of(x); mem[k].from_n = n_of(x);
	mem[k].chain = hop[x].chain | (1 << (x));
#ifndef BREAK_ANSWER_NOT_KEPT
	queued[k].T_ANSWER = queued[k].T_ANSWER | (ACCEPTED << (2 * (x)));
#endif
#ifdef BREAK_ANSWER_FIRST
	hop[x].accepted = 1;
#endif
	resident_put(k, LIVE)
}

/* what comes back is an answer of the destination, too: set aside while the home is asked */
#define asking_first(k) (mem[k].asking)

/* a higher incarnation is known here, or is here */
#define superseded(k, x) (known[k] > e_of(x) || (here(k) && mem[k].e > e_of(x)))

#define send_waits(k, x) \
	(up[k] && hop[x].sent && hop[x].dest == (k) && \
		(answer_in(stored[k], x) == 0 || \
			(answer_in(stored[k], x) == ACCEPTED && !hop[x].accepted) || \
			(answer_in(stored[k], x) == REFUSED && !hop[x].refused)) && \
		mem[k].state != ARRIVING && !refusing[k] && !((k) == HOME && finishing) && \
		!(hop[x].outcome && decides) && \
		!(answer_in(stored[k], x) == 0 && !superseded(k, x) && asking_first(k)) && \
		!(answer_in(stored[k], x) == 0 && superseded(k, x) && hop[x].superseded) && \
		!(answer_in(stored[k], x) == 0 && here(k) && mem[k].e < e_of(x)) && \
		!(answer_in(stored[k], x) == 0 && hop[x].outcome && hop[x].superseded && ended))

inline send_verb(k, x)
{
	if
	:: answer_in(stored[k], x) == ACCEPTED -> hop[x].accepted = 1
	:: answer_in(stored[k], x) == REFUSED -> hop[x].refused = 1
	:: else ->
		if
		:: superseded(k, x) -> hop[x].superseded = 1
		:: !superseded(k, x) && replayed(k, x) -> arrival_refuse(k, x)
		:: !superseded(k, x) && !replayed(k, x) && hop[x].outcome -> arrival_outcome(x)
		:: !superseded(k, x) && !replayed(k, x) && home_objects(k, x) -> arrival_refuse(k, x)
		:: !superseded(k, x) && !replayed(k, x) && !hop[x].outcome && !home_objects(k, x) ->
			arrival_journal(k, x)
		:: !superseded(k, x) && !replayed(k, x) && !hop[x].outcome && refusals > 0 ->
			refusals--;
			arrival_refuse(k, x)
		fi
	fi
}

/* ---- VOID: void_verb() at k, from s */
#define void_denied(k, s) \
	((here(k) && HOME != (s) && mem[k].from != (s)) || \
		(!here(k) && queued[k].T_GONE.has && HOME != (s) && queued[k].T_GONE.from != (s)))

#define void_pass(k, s, d, value) \
	queued[k].T_VOID = (queued[k].T_VOID & (255 - (3 << (2 * (d))))) | ((value) << (2 * (d))); \
	voided[k] = voided[k] & (255 - (1 << (d))); \
	voiding[k] = voiding[k] | (1 << (s)); \
	dirty[k] = true

inline void_verb(k, s, value)
{
	if
	:: here(k) || queued[k].T_GONE.has || mem[k].state == ARRIVING -> incarnation_learn(k, value)
	:: else /* nothing of it is here, so nothing is void */
	fi;
	if
	:: here(k) && mem[k].e < (value) ->
		if
		:: (mem[k].state == DEPARTING || mem[k].state == FREEZING) && !mem[k].outcome ->
			void_pass(k, s, mem[k].dest, value)
		:: else -> voided[s] = voided[s] | (1 << (k))
		fi;
		resident_drop(k)
	:: !here(k) && queued[k].T_GONE.has && queued[k].T_GONE.e < (value) &&
			queued[k].T_GONE.dest != HOME ->
		void_pass(k, s, queued[k].T_GONE.dest, value)
	:: else -> voided[s] = voided[s] | (1 << (k))
	fi
}

/* ---- reports: home_report(), arrived_verb(), on_reported() */
inline home_report(k)
{
	arrived[k].has = 1;
	arrived[k].e = mem[k].e; arrived[k].n = mem[k].n;
	arrived[k].departing = (mem[k].state == DEPARTING || mem[k].state == FREEZING);
	arrived[k].in_doubt = doubt[k];
	arrived[k].from = mem[k].from; arrived[k].from_e = mem[k].from_e;
	arrived[k].from_n = mem[k].from_n; arrived[k].chain = mem[k].chain;
	due[k] = false
}

inline on_reported(k)
{
	if
	:: up[k] && here(k) ->
		if
#ifndef BREAK_REPORT_BEFORE_GRANT
		/* whether the higher one is its own, the answer to ASK says */
		:: mem[k].asking && !ended -> skip
		:: mem[k].e < home.e && !(mem[k].asking && !ended) ->
#else
		:: mem[k].e < home.e ->
#endif
			incarnation_learn(k, home.e);
			resident_drop(k)
		:: else ->
			if
			:: mem[k].e == home.e && home.e > 0 -> incarnation_learn(k, home.e)
			:: else
			fi;
			if
			:: ended && (mem[k].state == LIVE || mem[k].state == GRANTED ||
				    mem[k].state == FAULTED) -> resident_drop(k)
			:: ended && mem[k].state == DEPARTING && doubt[k] && !mem[k].outcome ->
				resident_drop(k)
			:: else
			fi
		fi
	:: else
	fi
}

inline report_clear(k)
{
	arrived[k].has = 0; arrived[k].e = 0; arrived[k].n = 0; arrived[k].departing = 0;
	arrived[k].in_doubt = 0; arrived[k].from = 0; arrived[k].from_e = 0; arrived[k].from_n = 0;
	arrived[k].chain = 0
}

inline arrived_verb(k)
{
	if
	:: !ended && arrived[k].e > home.e -> /* claim_raised() */
		if
		:: home.kernel != k && shown(k, arrived[k], arrived[k].e) && up[k] && here(k) ->
			resident_drop(k)
		:: else
		fi
	:: else ->
		i = arrived[k].n;
		if
		:: arrived[k].departing && i > 0 -> i--
		:: else
		fi;
		if
		:: ended || arrived[k].e != home.e ||
			(k != HOME && home.kernel != k && !shown(k, arrived[k], arrived[k].e)) -> skip
		/* copy_is_void(): nothing leads to it from the place that is known */
		:: !(ended || arrived[k].e != home.e ||
			(k != HOME && home.kernel != k && !shown(k, arrived[k], arrived[k].e))) &&
			!arrived[k].departing && k != HOME && home.kernel != k &&
			(!good(k, arrived[k], arrived[k].e) || i < home.came) ->
			if
			:: up[k] && here(k) && mem[k].e == home.e && mem[k].n == i &&
				mem[k].state != DEPARTING && mem[k].state != FREEZING ->
				resident_drop(k)
			:: else
			fi
		:: else ->
			if
			:: i >= home.n && !(arrived[k].in_doubt && i == home.n && home.kernel != k) &&
				good(k, arrived[k], arrived[k].e) ->
				if
				:: arrived[k].from != NOBODY && arrived[k].from_n + 1 > home.n ->
					home.from = arrived[k].from
				:: else
				fi;
				denied = 0;
				if
				:: home.kernel != k -> home.kernel = k; home.came = i
				:: else
				fi;
				home.n = i;
				home_save()
			:: else
			fi
		fi;
		i = 0;
		on_reported(k)
	fi;
	report_clear(k)
}

/* the place itself sent it on with that number: what is known of it is of a departure that it
 * took back and that a crash made undone */
#define gone_later(gn, who) (gn + 1 > home.n || (gn + 1 == home.n && home.kernel == (who)))

#define gone_news(x) \
	(!ended && e_of(x) == home.e && gone_later(n_of(x), hop[x].src))

inline gone_verb(x)
{
	if
	:: gone_news(x) && good_record(hop[x].src, hop[x], e_of(x)) ->
		home.n = n_of(x) + 1;
		home.kernel = hop[x].dest;
		home.came = home.n;
		home.from = NOBODY;
		denied = 0;
		home_save()
	:: !gone_news(x) && !ended && n_of(x) + 1 == home.n && home.from == hop[x].src ->
		home.from = NOBODY;
		home_save()
	:: else
	fi;
	queued[hop[x].src].T_OUTBOX = queued[hop[x].src].T_OUTBOX & (32767 - (1 << (x)));
	dirty[hop[x].src] = true
}

/* ---- a doubt: resolve_begin(), ask_verb(), on_asked() */
inline resolve_begin(k)
{
	mem[k].asking = 1;
	resident_put(k, DEPARTING)
}

#define granted_before(k) \
	(!ended && mem[k].e < home.e && home.kernel == (k) && home.n <= mem[k].n)
#define elsewhere(k) (ended || mem[k].e < home.e || home.n > mem[k].n)
#define may_ask(k) \
	((home.kernel == mem[k].dest && home.from == (k)) || good(k, mem[k], mem[k].e))

inline ask_verb(k)
{
	asked_e[k] = 0;
	if
	:: granted_before(k) -> asked[k] = WORD_GRANTED; asked_e[k] = home.e
	:: !granted_before(k) && elsewhere(k) -> asked[k] = WORD_ELSEWHERE
	:: !granted_before(k) && !elsewhere(k) ->
		if
		:: mem[k].e > home.e || !may_ask(k) -> asked[k] = WORD_DECLINED
		:: else ->
			if
#ifndef BREAK_GRANT_UNDECLARED
			:: !declared(mem[k].dest) -> asked[k] = WORD_DECLINED
#endif
			:: else ->
				raising = true;
				raiser = k;
				home_put();
				T_HOME.kernel = k
			fi
		fi
	fi
}

inline on_asked(k)
{
	if
	:: asked[k] == WORD_GRANTED && asked_e[k] > mem[k].e -> /* grant_take() */
		queued[k].T_VOID = (queued[k].T_VOID & (255 - (3 << (2 * mem[k].dest)))) |
			(asked_e[k] << (2 * mem[k].dest));
		voided[k] = voided[k] & (255 - (1 << mem[k].dest));
		mem[k].e = asked_e[k];
		departure_over(k);
		due[k] = false; /* grant_saved() reports */
		mem[k].state = GRANTED;
		resident_put(k, LIVE)
	:: asked[k] == WORD_ELSEWHERE -> move_accepted(k)
	:: asked[k] == WORD_DECLINED -> mem[k].asking = 0; resident_put(k, DEPARTING)
	:: else
	fi;
	asked[k] = 0; asked_e[k] = 0
}

/* ---- HOLDS: holds_verb() at k, place_said() and source_said() at home */
#define gone_is_late(k) \
	(queued[k].T_GONE.has && (!stored[k].T_GONE.has || queued[k].T_GONE.e != stored[k].T_GONE.e || \
		queued[k].T_GONE.n != stored[k].T_GONE.n))
#define says_gone_or_unknown(k) \
	(!here(k) && (gone_is_late(k) || stored[k].T_RESIDENT.state == NONE))
#define says_gone(k) (says_gone_or_unknown(k) && queued[k].T_GONE.has)
#define gone_since(k) (queued[k].T_GONE.e == home.e && gone_later(queued[k].T_GONE.n, k))
#define waits_for_the_dead(k, d) \
	(mem[k].state == DEPARTING && doubt[k] && !mem[k].asking && !mem[k].outcome && \
		mem[k].dest == (d) && declared(d))

inline place_said(k)
{
	if
	:: says_gone(k) && gone_since(k) ->
		home.n = queued[k].T_GONE.n + 1;
		home.came = home.n;
		home.from = NOBODY;
		home.kernel = queued[k].T_GONE.dest;
		denied = 0;
		home_save()
	:: says_gone_or_unknown(k) && !(says_gone(k) && gone_since(k)) ->
		denied++
	:: !says_gone_or_unknown(k) ->
		denied = 0;
		if
		:: waits_for_the_dead(k, mem[k].dest) -> resolve_begin(k)
		:: else
		fi
	fi
}

/* Does asking the place change anything? */
#define place_news(k) \
	((says_gone(k) && gone_since(k) && queued[k].T_GONE.dest != HOME) || \
		(says_gone_or_unknown(k) && !(says_gone(k) && gone_since(k)) && denied < 2) || \
		(!says_gone_or_unknown(k) && (denied > 0 || waits_for_the_dead(k, mem[k].dest))))

/* holds_settle() */
#define settles (!ended && !now_busy && (declared(home.kernel) || denied == 2))
#define from_is_asked (home.from != NOBODY && home.from != home.kernel && !declared(home.from))

/* ---- a kernel */
#define EACH_KERNEL_2(RULE) RULE(0) RULE(1)
#if KERNELS == 3
#define EACH_KERNEL(RULE) EACH_KERNEL_2(RULE) RULE(2)
#else
#define EACH_KERNEL(RULE) EACH_KERNEL_2(RULE)
#endif
#define EACH_HOP_4(RULE) RULE(0) RULE(1) RULE(2) RULE(3)
#if DEPARTURES * (RAISES + 1) == 4
#define EACH_HOP(RULE) EACH_HOP_4(RULE)
#elif DEPARTURES * (RAISES + 1) == 6
#define EACH_HOP(RULE) EACH_HOP_4(RULE) RULE(4) RULE(5)
#elif DEPARTURES * (RAISES + 1) == 8
#define EACH_HOP(RULE) EACH_HOP_4(RULE) RULE(4) RULE(5) RULE(6) RULE(7)
#elif DEPARTURES * (RAISES + 1) == 9
#define EACH_HOP(RULE) EACH_HOP_4(RULE) RULE(4) RULE(5) RULE(6) RULE(7) RULE(8)
#endif

#define RULE_DEPART(d) \
	:: atomic { up[k] && mem[k].state == LIVE && mem[k].n < NN && (d) != k -> \
		say("%d: departs\n", k); depart(k, d) }
#define RULE_SEND(x) \
	:: atomic { send_waits(k, x) -> say("%d: takes SEND\n", k); send_verb(k, x) }
#define RULE_VOID(s) \
	:: atomic { up[k] && (s) != k && void_in(stored[s], k) > 0 && \
			!((voided[s] >> k) & 1) && !((voiding[k] >> (s)) & 1) && !void_denied(k, s) -> \
		say("%d: takes VOID\n", k); void_verb(k, s, void_in(stored[s], k)) }
#define RULE_VOIDED(d) \
	:: d_step { up[k] && void_in(queued[k], d) > 0 && ((voided[k] >> (d)) & 1) -> \
		say("%d: its VOID was acknowledged\n", k); queued[k].T_VOID = queued[k].T_VOID & (255 - (3 << (2 * (d)))); \
		voided[k] = voided[k] & (255 - (1 << (d))); \
		dirty[k] = true }

#define this_hop x_of(mem[k].e, mem[k].n - 1)

proctype a_kernel(byte k)
{
end:
	do
	:: d_step { up[k] && dirty[k] -> say("the journal of %d is on the disk\n", k); flush(k) }

	/* the source */
	EACH_KERNEL(RULE_DEPART)
	:: d_step { up[k] && mem[k].state == LIVE && ((k == HOME && !now_busy) || (k != HOME && mem[k].n < NN)) ->
		say("%d: it is finished\n", k); outcome_begin(k) }
#ifdef BREAK_SEND_FIRST
	:: d_step { up[k] && mem[k].state == FREEZING && !hop[this_hop].sent -> send_now(k, this_hop) }
#endif
	:: d_step { up[k] && mem[k].state == DEPARTING && !mem[k].asking && !hop[this_hop].sent ->
		say("%d: SEND\n", k); send_now(k, this_hop) }
	/* the frame never left: the number stays used, nothing is journaled */
	:: d_step { up[k] && mem[k].state == DEPARTING && !sent[k] && !mem[k].outcome &&
			!doubt[k] && unsent > 0 -> unsent--; say("%d: the frame never left\n", k); departure_undone(k); started(k) }
	/* no answer came: move_doubt() */
	:: d_step { up[k] && mem[k].state == DEPARTING && sent[k] && !doubt[k] ->
		say("%d: in doubt\n", k); doubt[k] = true;
		due[k] = due[k] || !mem[k].outcome }
	/* its destination's answer: move_answer() */
	:: d_step { up[k] && mem[k].state == DEPARTING && !mem[k].asking && sent[k] &&
			hop[this_hop].accepted -> say("%d: hears accepted\n", k); move_accepted(k) }
	:: d_step { up[k] && mem[k].state == DEPARTING && !mem[k].asking && sent[k] &&
			hop[this_hop].refused -> say("%d: hears refused\n", k); move_refused(k) }
	:: d_step { up[k] && mem[k].state == DEPARTING && !mem[k].asking && sent[k] &&
			hop[this_hop].superseded -> say("%d: hears superseded\n", k); resident_drop(k) }
	/* tos resolve */
	:: d_step { up[k] && mem[k].state == DEPARTING && doubt[k] && !mem[k].asking &&
			!mem[k].outcome && asks > 0 -> say("%d: tos resolve\n", k); asks--; resolve_begin(k) }
	:: d_step { up[k] && asked[k] > 0 && mem[k].state == DEPARTING && mem[k].asking ->
		say("%d: hears what the home decided\n", k); on_asked(k) }
	:: d_step { up[k] && due[k] && here(k) -> say("%d: ARRIVED goes out\n", k); home_report(k) }

	/* the destination */
	EACH_HOP(RULE_SEND)
	EACH_KERNEL(RULE_VOID)
	EACH_KERNEL(RULE_VOIDED)

	/* faults */
	:: d_step { up[k] && crashes > 0 ->
		say("%d: crash\n", k); crashes--;
		up[k] = false;
		copy_clear(mem[k]);
		copy_set(queued[k].T_RESIDENT, stored[k].T_RESIDENT);
		gone_set(queued[k].T_GONE, stored[k].T_GONE);
		queued[k].T_INCARNATION = stored[k].T_INCARNATION;
		queued[k].T_ANSWER = stored[k].T_ANSWER;
		queued[k].T_VOID = stored[k].T_VOID;
		queued[k].T_DECLARED = stored[k].T_DECLARED;
		queued[k].T_OUTBOX = stored[k].T_OUTBOX;
		dirty[k] = false; sent[k] = false; doubt[k] = false; due[k] = false;
		known[k] = 0; refusing[k] = 0; voiding[k] = 0; asked[k] = 0; asked_e[k] = 0;
		if
		:: k == HOME ->
			home_set(T_HOME, T_HOME_stored);
			home_set(home, T_HOME_stored);
			denied = 0; raising = false; raiser = 0; save_due = false; finishing = 0;
			report_clear(HOME) /* it went no further than this process */
		:: else
		fi }
	/* residents_load(), and links that come up: handoff_link_up(), home_link_up() */
	:: d_step { !up[k] ->
		say("%d: restart\n", k); up[k] = true;
		copy_set(mem[k], stored[k].T_RESIDENT);
		known[k] = stored[k].T_INCARNATION;
		sent[k] = (mem[k].state == DEPARTING);
		doubt[k] = sent[k];
		due[k] = (mem[k].state != NONE);
		if
		:: mem[k].state == LIVE -> started(k)
		:: else
		fi;
		if
		:: k == HOME ->
			i = 0;
			do
			:: i < KERNELS ->
				due[i] = due[i] || (up[i] && here(i));
				i++
			:: else -> break
			od;
			i = 0
		:: else
		fi }
	od
}

/* ---- what the home hears and decides */
#define home_lost() finishing = NO_COPY; home_put(); T_HOME.state = LOST

#define RULE_ARRIVED(k) \
	:: d_step { up[HOME] && linked(k) && arrived[k].has && !busy -> say("home: takes ARRIVED of %d\n", k); arrived_verb(k) }
#define RULE_GONE(x) \
	:: d_step { up[HOME] && up[hop[x].src] && linked(hop[x].src) && \
			!busy && ((queued[hop[x].src].T_OUTBOX >> (x)) & 1) && \
			!(gone_news(x) && gap(hop[x].src, hop[x], e_of(x))) -> say("home: takes GONE of %d\n", hop[x].src); gone_verb(x) }
#define RULE_ASK(k) \
	:: d_step { up[HOME] && linked(k) && !raising && !decides && up[k] && asked[k] == 0 && \
			mem[k].state == DEPARTING && stored[k].T_RESIDENT.asking && \
			mem[k].asking -> say("home: takes ASK of %d\n", k); ask_verb(k) }
#define RULE_HOLDS(k) \
	:: d_step { (k) != HOME && up[HOME] && linked(k) && up[k] && !ended && !busy && home.kernel == (k) && \
			place_news(k) -> say("home: HOLDS answered by %d\n", k); place_said(k) }
#define RULE_HOLDS_FROM(k) \
	:: d_step { up[HOME] && linked(k) && up[k] && settles && from_is_asked && home.from == (k) && \
			(says_gone_or_unknown(k) || waits_for_the_dead(k, home.kernel)) -> \
		say("home: HOLDS, the source, answered by %d\n", k); \
		if \
		:: says_gone_or_unknown(k) -> home.from = NOBODY; home_save() \
		:: else -> resolve_begin(k) \
		fi }
#define RULE_DECLARE(k) \
	:: d_step { (k) != HOME && up[HOME] && declarations > 0 && !cut[k] -> \
		say("home: %d is declared dead\n", k); declarations--; \
		declaration_made = true; \
		cut[k] = true; \
		queued[HOME].T_DECLARED = queued[HOME].T_DECLARED | (1 << (k)); \
		dirty[HOME] = true }
#define RULE_LINK_UP(k) \
	:: d_step { (k) != HOME && up[HOME] && up[k] && cut[k] -> \
		say("home: %d is linked again\n", k); cut[k] = false; \
		due[k] = due[k] || here(k) }
/* declaration_lift() */
#define RULE_LIFT(k) \
	:: d_step { (k) != HOME && up[HOME] && up[k] && !cut[k] && \
			(queued[HOME].T_DECLARED >> (k)) & 1 -> \
		say("home: the declaration of %d is lifted\n", k); queued[HOME].T_DECLARED = queued[HOME].T_DECLARED & (255 - (1 << (k))); \
		dirty[HOME] = true }

#define copies_at(k) (mem[k].state != NONE)

proctype the_home()
{
end:
	do
	EACH_KERNEL(RULE_ARRIVED)
	EACH_HOP(RULE_GONE)
	EACH_KERNEL(RULE_ASK)
	EACH_KERNEL(RULE_HOLDS)
	EACH_KERNEL(RULE_HOLDS_FROM)
	:: d_step { up[HOME] && settles && !from_is_asked -> say("%d: the home takes it as lost\n", HOME); home_lost() }
	:: d_step { up[HOME] && save_due && !raising -> save_due = false; home_save() }
	EACH_KERNEL(RULE_DECLARE)
	EACH_KERNEL(RULE_LINK_UP)
	EACH_KERNEL(RULE_LIFT)
	od
}

/* ---- nothing more can happen: all kernels are up, linked, and have heard all there is to hear */
proctype rest()
{
	byte live = 0, other = 0, j = 0;

	timeout ->
	d_step {
		do
		:: j < KERNELS ->
			assert(up[j] && !cut[j] && !dirty[j]);
			if
			:: mem[j].state == LIVE -> live++; assert(mem[j].e == home.e);
				assert(home.kernel == j)
			:: mem[j].state != NONE && mem[j].state != LIVE -> other++
			:: else
			fi;
			j++
		:: else -> break
		od;
		/* no doubt is left, nothing is half done */
		assert(other == 0);
		/* never none, unless it ended */
		assert(ended || live == 1);
		assert(!ended || live == 0);
		/* never lost, unless somebody declared a kernel dead */
		assert(home.state != LOST || declaration_made);
		/* what has ended has ended on the disk, too */
		assert(T_HOME_stored.state == home.state && T_HOME_stored.e == home.e);
		assert(finished == (home.state == FINISHED))
	}
}

init
{
	byte k = 0;

	atomic {
		do
		:: k < KERNELS ->
			up[k] = true;
			mem[k].from = 0;
			k++
		:: else -> break
		od;
		mem[START].state = LIVE;
		mem[START].from = NOBODY;
		home.kernel = START; home.from = NOBODY;
		if
		:: START != HOME ->
			mem[START].n = 1;
			mem[START].from = HOME; mem[START].from_e = 0; mem[START].from_n = 0;
			home.n = 1; home.came = 1;
			mem[START].chain = 1;
			hop[0].sent = 1; hop[0].src = HOME; hop[0].dest = START; hop[0].from = NOBODY;
			hop[0].accepted = 1;
			queued[START].T_ANSWER = ACCEPTED; stored[START].T_ANSWER = ACCEPTED;
			queued[HOME].T_GONE.has = 1; queued[HOME].T_GONE.dest = START;
			queued[HOME].T_GONE.from = NOBODY;
			gone_set(stored[HOME].T_GONE, queued[HOME].T_GONE)
		:: else
		fi;
		copy_set(queued[START].T_RESIDENT, mem[START]);
		copy_set(stored[START].T_RESIDENT, mem[START]);
		home_set(T_HOME, home);
		home_set(T_HOME_stored, home);
		k = 0;
		do
		:: k < KERNELS -> run a_kernel(k); k++
		:: else -> break
		od;
		run the_home();
		run rest()
	}
}
