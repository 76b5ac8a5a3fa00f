-- Tables and functions of a coordination store. Rust replaces the name of the schema, and executes everything in one
-- transaction. Executing it again changes nothing, or replaces functions of an older release.

SELECT pg_advisory_xact_lock(hashtext('clustering'));
CREATE SCHEMA IF NOT EXISTS "clustering";

-- The only row. Every change locks it first, so revisions become visible in the order of their numbers.
CREATE TABLE IF NOT EXISTS "clustering".counter (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    revision bigint NOT NULL DEFAULT 0,
    -- Changes up to this revision are gone.
    compacted bigint NOT NULL DEFAULT 0,
    -- Changes up to this revision will be gone soon. No new watch may start before it.
    compacting bigint NOT NULL DEFAULT 0,
    compacting_since timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 10);
INSERT INTO "clustering".counter DEFAULT VALUES ON CONFLICT DO NOTHING;

CREATE TABLE IF NOT EXISTS "clustering".lease (
    id bigint PRIMARY KEY,
    ttl interval NOT NULL,
    expires timestamptz NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE IF NOT EXISTS "clustering".entry (
    key bytea PRIMARY KEY,
    value bytea NOT NULL,
    created bigint NOT NULL,
    modified bigint NOT NULL,
    lease bigint
);
CREATE INDEX IF NOT EXISTS entry_lease ON "clustering".entry (lease) WHERE lease IS NOT NULL;

-- The changes. A change without a value deleted the key.
CREATE TABLE IF NOT EXISTS "clustering".log (
    revision bigint,
    key bytea,
    value bytea,
    created bigint,
    lease bigint,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (revision, key)
);

CREATE OR REPLACE FUNCTION "clustering".micros(at timestamptz) RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$ SELECT (extract(epoch FROM at) * 1000000)::bigint $$;

-- Locks the counter until the end of the transaction, and returns the revision.
CREATE OR REPLACE FUNCTION "clustering".locked_revision() RETURNS bigint
LANGUAGE sql AS $$ SELECT revision FROM "clustering".counter FOR UPDATE $$;

-- Completes a revision, for a caller that has locked the counter and changed these entries: appends them to the log, and
-- wakes the watches of their keys. `*` wakes all watches, if the keys do not fit into a notification.
CREATE OR REPLACE FUNCTION "clustering".append(new_revision bigint, keys bytea[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    changed text := (SELECT string_agg(encode(k, 'hex'), ' ') FROM unnest(keys) k);
BEGIN
    INSERT INTO "clustering".log (revision, key, value, created, lease)
        SELECT new_revision, k, e.value, e.created, e.lease
        FROM unnest(keys) k LEFT JOIN "clustering".entry e ON e.key = k;
    UPDATE "clustering".counter SET revision = new_revision;
    PERFORM pg_notify('clustering', CASE WHEN length(changed) < 7900 THEN changed ELSE '*' END);
END $$;

-- Applies a commit, and returns the outcome and the revision: `done`, `guard` (a guard failed) or `lease` (a lease has
-- ended; the number is its ID).
CREATE OR REPLACE FUNCTION "clustering".commit(
    guard_keys bytea[], guards_modified boolean[], guard_revisions bigint[],
    put_keys bytea[], put_values bytea[], put_leases bigint[],
    deletes bytea[],
    OUT outcome text, OUT number bigint)
LANGUAGE plpgsql AS $$
DECLARE
    old_revision bigint := "clustering".locked_revision();
    new_revision bigint := old_revision + 1;
    dead_lease bigint;
    deleted bytea[];
BEGIN
    PERFORM FROM unnest(guard_keys, guards_modified, guard_revisions) AS g (key, is_modified, revision)
        LEFT JOIN "clustering".entry e ON e.key = g.key
        WHERE coalesce(CASE WHEN g.is_modified THEN e.modified ELSE e.created END, 0) <> g.revision;
    IF FOUND THEN
        outcome := 'guard';
        number := old_revision;
        RETURN;
    END IF;

    -- A lease can only end under the lock of the counter, so a lease that is found here outlives this transaction.
    SELECT l INTO dead_lease FROM unnest(put_leases) l
        WHERE l IS NOT NULL AND NOT EXISTS (SELECT FROM "clustering".lease WHERE id = l) LIMIT 1;
    IF FOUND THEN
        outcome := 'lease';
        number := dead_lease;
        RETURN;
    END IF;

    WITH gone AS (DELETE FROM "clustering".entry WHERE key = ANY (deletes) RETURNING key)
        SELECT coalesce(array_agg(key), '{}') INTO deleted FROM gone;
    outcome := 'done';
    IF cardinality(put_keys) + cardinality(deleted) = 0 THEN
        number := old_revision;
        RETURN;
    END IF;
    INSERT INTO "clustering".entry AS e (key, value, created, modified, lease)
        SELECT p.key, p.value, new_revision, new_revision, p.lease
        FROM unnest(put_keys, put_values, put_leases) AS p (key, value, lease)
        ON CONFLICT (key) DO UPDATE
            SET value = excluded.value, modified = excluded.modified, lease = excluded.lease;
    PERFORM "clustering".append(new_revision, put_keys || deleted);
    number := new_revision;
END $$;

-- Grants a lease, and tells the other processes its TTL, since it may expire before all leases that they know.
CREATE OR REPLACE FUNCTION "clustering".grant_lease(lease_id bigint, ttl_ms bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    lifetime interval := ttl_ms * interval '1 millisecond';
BEGIN
    INSERT INTO "clustering".lease (id, ttl, expires) VALUES (lease_id, lifetime, clock_timestamp() + lifetime);
    PERFORM pg_notify('clustering', 'ttl ' || ttl_ms);
END $$;

-- Deletes the entries of an ended lease in a revision of its own, for a caller that has locked the counter.
CREATE OR REPLACE FUNCTION "clustering".delete_entries(ended bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    deleted bytea[];
BEGIN
    WITH gone AS (DELETE FROM "clustering".entry WHERE lease = ended RETURNING key)
        SELECT array_agg(key) INTO deleted FROM gone;
    IF deleted IS NOT NULL THEN
        PERFORM "clustering".append("clustering".locked_revision() + 1, deleted);
    END IF;
END $$;

-- Returns false if the lease has already ended.
CREATE OR REPLACE FUNCTION "clustering".revoke_lease(lease_id bigint) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM "clustering".locked_revision();
    DELETE FROM "clustering".lease WHERE id = lease_id;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM "clustering".delete_entries(lease_id);
    RETURN true;
END $$;

-- Ends the overdue leases, and returns their number. The caller has watched the clock since `anchor`, for `elapsed_us`
-- by its own clock. If the two clocks disagree by more than the margin, the server's clock was set forward in the
-- meantime, and no lease is ended: otherwise leases would not live for their TTL. For a lease that was renewed before
-- `anchor`, the TTL counts from `anchor`.
CREATE OR REPLACE FUNCTION "clustering".sweep(anchor timestamptz, elapsed_us bigint, margin_ms bigint) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    margin interval := margin_ms * interval '1 millisecond';
    now_at timestamptz := clock_timestamp();
    ended bigint;
    number integer := 0;
BEGIN
    IF now_at - anchor > elapsed_us * interval '1 microsecond' + margin THEN
        RETURN 0;
    END IF;
    PERFORM FROM "clustering".lease WHERE greatest(expires, anchor + ttl) + margin <= now_at;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    PERFORM "clustering".locked_revision();
    -- A lease that was renewed or ended while this waited for the lock is not found again.
    FOR ended IN
        DELETE FROM "clustering".lease WHERE greatest(expires, anchor + ttl) + margin <= now_at RETURNING id
    LOOP
        PERFORM "clustering".delete_entries(ended);
        number := number + 1;
    END LOOP;
    RETURN number;
END $$;

-- First phase of a compaction: new watches can no longer start before the revision, and open ones are woken, so that
-- those with nothing left to deliver move past it. Returns the revision.
CREATE OR REPLACE FUNCTION "clustering".begin_compaction(up_to bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    target bigint;
BEGIN
    PERFORM "clustering".locked_revision();
    UPDATE "clustering".counter
        SET compacting = greatest(compacting, least(up_to, revision)), compacting_since = clock_timestamp()
        RETURNING compacting INTO target;
    PERFORM pg_notify('clustering', '*');
    RETURN target;
END $$;

-- Second phase, some time later: watches that are still behind end. Deletes a limited number of changes, and returns true
-- if there may be more.
CREATE OR REPLACE FUNCTION "clustering".finish_compaction() RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    deleted integer;
BEGIN
    PERFORM FROM "clustering".counter WHERE compacted < compacting;
    IF FOUND THEN
        UPDATE "clustering".counter SET compacted = compacting;
    END IF;
    DELETE FROM "clustering".log WHERE (revision, key) IN (
        SELECT l.revision, l.key FROM "clustering".log l, "clustering".counter c
        WHERE l.revision <= c.compacted ORDER BY l.revision LIMIT 5000 FOR UPDATE OF l SKIP LOCKED);
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted = 5000;
END $$;

-- Compacts the changes that are older than `keep_ms`, in the two phases, with at least `grace_ms` between them. Returns
-- true if it should be called again at once.
CREATE OR REPLACE FUNCTION "clustering".compact_old(keep_ms bigint, grace_ms bigint) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    counter "clustering".counter;
    old bigint;
BEGIN
    SELECT * INTO counter FROM "clustering".counter;
    IF counter.compacting > counter.compacted THEN
        RETURN counter.compacting_since + grace_ms * interval '1 millisecond' <= clock_timestamp()
            AND "clustering".finish_compaction();
    END IF;
    IF EXISTS (SELECT FROM "clustering".log WHERE revision <= counter.compacted) THEN
        RETURN "clustering".finish_compaction();
    END IF;
    SELECT max(revision) INTO old FROM "clustering".log
        WHERE at <= clock_timestamp() - keep_ms * interval '1 millisecond';
    IF old IS NOT NULL THEN
        PERFORM "clustering".begin_compaction(old);
    END IF;
    RETURN false;
END $$;

-- Operators call this after the database was restored from a backup, before services connect again. Moves the revision
-- beyond all revisions used since the backup, and ends all watches, so that no watch mistakes new changes for earlier
-- ones.
CREATE OR REPLACE FUNCTION "clustering".after_restore() RETURNS bigint
LANGUAGE sql AS $$
    UPDATE "clustering".counter
        SET revision = revision + 1000000000, compacted = revision + 1000000000, compacting = revision + 1000000000
        RETURNING revision
$$;
