/*
 * What the firewall would say, and why: CAN for `tos can`. It asks the same rules by the same
 * function as a post does, and decides nothing.
 */
#include "kernel/trust/trust.h"

#include <libgen.h>
#include <string.h>

#define MATCHES_SHOWN 16

struct question {
	struct origin who;
	const char *action, *object, *owner;
	struct rights *only[2]; /* of certificates: principal, author */
};

static unsigned roles_of(const struct tos_value *list, const char **unknown)
{
	unsigned roles = 0;

	for (size_t i = 0; i < tos_len(list); i++) {
		const char *word = tos_as_text(tos_at(list, i), "");
		unsigned role = role_parse(word);

		if (!role)
			*unknown = word;
		roles |= role;
	}
	return roles;
}

/* Whom a carrier speaks for is its owner; launch and arrive are asked of it as well. */
static bool is_carriers(const char *action)
{
	return strcmp(action, "launch") == 0 || strcmp(action, "arrive") == 0;
}

/* "alice", "principal:alice", "carrier-of:alice", "kernel:host1", "class:carrier" */
static int who_parse(const char *who, const char *action, struct origin *out, struct errmsg *em)
{
	static const enum origin_class classes[] = { ORIGIN_KERNEL, ORIGIN_EXTENSION,
		ORIGIN_CARRIER, ORIGIN_CLIENT };
	const char *colon = strchr(who, ':'), *name = colon ? colon + 1 : who;
	size_t n = colon ? (size_t)(colon - who) : 0;

	snprintf(out->name, sizeof(out->name), "%s", name);
	if (!colon || strncmp(who, "principal:", n + 1) == 0 ||
		strncmp(who, "carrier-of:", n + 1) == 0) {
		bool carrier = (colon && *who == 'c') || (!colon && is_carriers(action));

		out->cls = carrier ? ORIGIN_CARRIER : ORIGIN_CLIENT;
		snprintf(out->principal, sizeof(out->principal), "%s", name);
		return *name ? 0 : err_set(em, ERR_NAME, "'%s' names nobody", who);
	}
	if (strncmp(who, "kernel:", n + 1) == 0) {
		out->cls = ORIGIN_KERNEL;
		snprintf(out->kernel, sizeof(out->kernel), "%s", name);
		return 0;
	}
	for (size_t i = 0; strncmp(who, "class:", n + 1) == 0 && i < ARRAY_LEN(classes); i++)
		if (strcmp(origin_class_word(classes[i]), name) == 0) {
			out->cls = classes[i];
			return 0;
		}
	return err_set(em, ERR_NAME,
		"'%s': who is a principal's name, carrier-of:NAME, kernel:NAME or class:carrier, "
		"client, extension, kernel",
		who);
}

/* As a kernel reads them: what is not understood allows nothing. */
static void restrictions_parse(const struct tos_value *args, struct question *q)
{
	static const char *const keys[] = { "only", "author_only" };
	const char *of[] = { q->who.principal, q->who.author };

	for (size_t i = 0; i < ARRAY_LEN(keys); i++)
		if (tos_get_text(args, keys[i], "")[0]) {
			q->only[i] = mem_new(struct rights);
			rights_parse(tos_get_text(args, keys[i], ""), of[i], q->only[i], NULL);
		}
	q->who.owner_only = q->only[0];
	q->who.author_only = q->only[1];
}

/* What each certificate says; *allowed: none of them denies it. */
static struct tos_value *restrictions_value(const struct question *q, bool *allowed)
{
	struct tos_value *list = tos_array();

	*allowed = true;
	for (size_t i = 0; i < ARRAY_LEN(q->only); i++) {
		struct tos_value *m;
		const char *why = "";
		int rc;

		if (!q->only[i])
			continue;
		rc = rights_check(
			q->only[i], q->action, q->only[i]->of, q->object, q->owner, &why);
		m = tos_map();
		tos_set(m, "of", tos_text(q->only[i]->of));
		tos_set(m, "allows", tos_bool(rc == 0));
		tos_set(m, "restriction", tos_text(why));
		tos_push(list, m);
		*allowed = *allowed && rc == 0;
	}
	return list;
}

static void question_fini(struct question *q)
{
	free(q->only[0]);
	free(q->only[1]);
}

static int question_parse(
	struct kernel *k, const struct tos_value *args, struct question *q, struct errmsg *em)
{
	const char *unknown = NULL;
	size_t i = 0;
	int rc;

	q->action = tos_get_text(args, "action", "");
	q->object = tos_get_text(args, "object", "");
	q->owner = tos_get_text(args, "owner", "");
	while (right_action(i) && strcmp(right_action(i), q->action) != 0)
		i++;
	if (!right_action(i)) {
		AUTOBUF all = BUF_INIT;

		for (i = 0; right_action(i); i++)
			buf_printf(&all, "%s%s", i ? ", " : "", right_action(i));
		return err_set(em, ERR_NAME, "'%.32s' is no action; there are %s", q->action,
			buf_cstr(&all));
	}
	rc = who_parse(tos_get_text(args, "who", ""), q->action, &q->who, em);
	snprintf(q->who.author, sizeof(q->who.author), "%s", tos_get_text(args, "author", ""));
	restrictions_parse(args, q);
	q->who.roles = roles_of(tos_get(args, "roles"), &unknown);
	if (rc == 0 && unknown)
		rc = err_set(em, ERR_NAME, "there is no role %.32s", unknown);
	/* As the kernel itself would ask. */
	if (is_carriers(q->action) && !q->object[0])
		q->object = k->config.name;
	if (!q->owner[0])
		q->owner =
			is_carriers(q->action) ? q->who.principal : carrier_owner(k, q->object);
	return rc;
}

/* Where a rule stands: "/.../tosd.conf:12", or "default". */
static struct tos_value *rule_place(const struct kernel *k, size_t i)
{
	char sock[TOSD_PATH_BYTES], conf[TOSD_PATH_BYTES];

	if (i >= k->config.n_own_rules)
		return tos_text("default");
	/* people know the folder by the name that it has outside */
	snprintf(sock, sizeof(sock), "%s", k->socket_path);
	snprintf(conf, sizeof(conf), "%s", k->conf_path);
	return tos_textf("%s/%s:%u", dirname(sock), basename(conf), k->config.rule_lines[i]);
}

static struct tos_value *rules_value(
	const struct kernel *k, const size_t *at, size_t n, bool *allowed)
{
	struct tos_value *list = tos_array();

	for (size_t i = 0; i < n; i++) {
		struct tos_value *m = tos_map();

		tos_set(m, "rule", tos_text(firewall_rule(k->firewall, at[i])));
		tos_set(m, "at", rule_place(k, at[i]));
		tos_push(list, m);
	}
	*allowed = n && firewall_rule_allows(k->firewall, at[0]);
	return list;
}

static void why_text(const struct question *q, size_t n, bool allowed, struct buf *out)
{
	if (strcmp(q->action, "post") == 0 && !inbox_class_ok(q->object, q->who.cls))
		buf_printf(out, "the inbox %s takes nothing from a %s, whatever the rules say",
			q->object, origin_class_word(q->who.cls));
	else if (n == 0)
		buf_add_str(out, "no rule speaks of it, so it is denied");
	else if (n == 1)
		buf_printf(out, "the only rule that speaks of it %s it",
			allowed ? "allows" : "denies");
	else
		buf_printf(out, "of %zu rules that speak of it this is the most specific%s", n,
			allowed ? "" : ", or denies as specifically as another allows");
}

void can_verb(struct kernel *k, struct request *rq)
{
	struct question q = { .who = { .cls = ORIGIN_CLIENT } };
	size_t at[MATCHES_SHOWN], n;
	AUTOBUF why = BUF_INIT;
	struct errmsg em = { "" };
	struct tos_value *m, *rules, *restrictions;
	struct subject s;
	bool allowed, narrowed;
	int rc;

	if (control_may_read(k, rq) < 0)
		return;
	rc = question_parse(k, rq->args, &q, &em);
	if (rc < 0) {
		question_fini(&q);
		request_fail(rq, rc, "%s", err_show(rc, &em));
		return;
	}
	subject_of(&q.who, &s);
	n = firewall_matches(k->firewall, &s, q.action, &(struct object){ q.object, q.owner },
		at, MATCHES_SHOWN);
	rules = rules_value(k, at, n < MATCHES_SHOWN ? n : MATCHES_SHOWN, &allowed);
	if (strcmp(q.action, "post") == 0 && !inbox_class_ok(q.object, q.who.cls))
		allowed = false;
	why_text(&q, n, allowed, &why);
	restrictions = restrictions_value(&q, &narrowed);
	if (allowed && !narrowed)
		buf_add_str(&why, "; a certificate does not");
	allowed = allowed && narrowed;
	m = tos_map();
	tos_set(m, "allowed", tos_bool(allowed));
	tos_set(m, "kernel", tos_text(k->config.name));
	tos_set(m, "as", tos_text(origin_class_word(q.who.cls)));
	tos_set(m, "why", tos_text(buf_cstr(&why)));
	tos_set(m, "rules", rules);
	if (tos_len(restrictions))
		tos_set(m, "restrictions", STEAL(restrictions));
	tos_value_free(restrictions);
	question_fini(&q);
	request_ok(rq, m);
}
