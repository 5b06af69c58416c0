-- What the serving broker may do in PostgreSQL. Run it as the owner of the
-- schema, in the broker's database, after every `broker db upgrade`; it is safe
-- to repeat. The owner migrates and never serves.
--
-- The role must exist. Whoever may create roles does it once:
--   CREATE ROLE credbroker_runtime LOGIN PASSWORD '…';
--
-- Nothing can be deleted but one-time proofs that have expired, and the names of
-- replicas that have ended. What was requested, decided and granted is written
-- once: only the columns that follow a thing through its life can change, and in
-- events none.

BEGIN;

REVOKE ALL ON ALL TABLES IN SCHEMA public FROM PUBLIC, credbroker_runtime;
REVOKE CREATE ON SCHEMA public FROM PUBLIC, credbroker_runtime;
GRANT USAGE ON SCHEMA public TO credbroker_runtime;

-- So that the broker can tell whether the schema is the one it needs.
GRANT SELECT ON alembic_version TO credbroker_runtime;

GRANT SELECT, UPDATE (revision) ON policy_revision TO credbroker_runtime;
GRANT SELECT, INSERT, UPDATE (current) ON scopes TO credbroker_runtime;
GRANT SELECT, INSERT, UPDATE (lifted_at, lifted_by) ON locks TO credbroker_runtime;
GRANT SELECT, INSERT, UPDATE (state, heartbeat_at, due_at, ended_at, revocation_confirmed_at)
    ON tasks TO credbroker_runtime;
GRANT SELECT, INSERT, UPDATE (state, accessor, expires_at) ON anchors TO credbroker_runtime;
GRANT SELECT, INSERT, UPDATE (
    state, renewable, expires_at, max_expires_at, fingerprint, accessor, lease_id, request_id,
    renewed_at, revoke_requested_at, end_reason, ended_at
) ON issuances TO credbroker_runtime;
GRANT SELECT, INSERT, UPDATE (attempts, next_attempt_at, last_error, confirmed_at, epoch, claimed_by)
    ON revocations TO credbroker_runtime;
GRANT SELECT, INSERT, UPDATE (holder, epoch, expires_at) ON leases TO credbroker_runtime;
GRANT SELECT, INSERT, UPDATE (seen_at), DELETE ON replicas TO credbroker_runtime;
GRANT SELECT ON installation TO credbroker_runtime;
GRANT SELECT, INSERT, DELETE ON proofs TO credbroker_runtime;
GRANT SELECT, INSERT ON events TO credbroker_runtime;

COMMIT;
