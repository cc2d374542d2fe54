"""A person's word in the hot path, checkpoints, and every refusal on record.

The functions of migration 0004 again, for more rules: `escrow_judge` knows frozen pools, new recipients and approvals, and
`escrow_send` writes down what it refused. There is no way back, as there was none from 0004.
"""

from django.db import migrations

GUARD = """
CREATE TRIGGER session_policies_only_grow BEFORE UPDATE OR DELETE OR TRUNCATE ON escrow_sessionpolicy
    FOR EACH STATEMENT EXECUTE FUNCTION escrow_refuse('a change is another version');
CREATE TRIGGER denials_only_grow BEFORE UPDATE OR DELETE OR TRUNCATE ON escrow_denial
    FOR EACH STATEMENT EXECUTE FUNCTION escrow_refuse('what was decided stays on record');

INSERT INTO escrow_sessionpolicy (session_id, version, policy, created_at)
SELECT id, policy_version, policy, created_at FROM escrow_session;
UPDATE escrow_payment SET policy_version = 1 WHERE kind = 'call';
UPDATE escrow_hold SET policy_version = 1;

CREATE VIEW escrow_decision AS
SELECT
    id, session_id, payer_id, party_id, 'payment'::varchar(8) AS kind, true AS is_allowed, ''::varchar(40) AS rule,
    policy_version, "to", capability, amount_micros, '{}'::jsonb AS facts, created_at
FROM escrow_payment WHERE policy_version IS NOT NULL
UNION ALL
SELECT
    hold.id, hold.session_id, pool.payer_id, hold.party_id, 'hold', true, '', hold.policy_version, hold."to",
    hold.capability, account.received_micros, '{}', hold.created_at
FROM escrow_hold AS hold
JOIN escrow_account AS account ON account.id = hold.account_id
JOIN escrow_pool AS pool ON pool.id = account.pool_id
WHERE hold.policy_version IS NOT NULL
UNION ALL
SELECT
    id, session_id, payer_id, party_id, kind, false, rule, policy_version, "to", capability, amount_micros, facts,
    created_at
FROM escrow_denial;
"""

DROP = """
DROP FUNCTION escrow_send;
DROP FUNCTION escrow_judge;
DROP FUNCTION escrow_open_payables;
ALTER TYPE escrow_verdict ADD ATTRIBUTE policy_version integer, ADD ATTRIBUTE checkpoint integer;
"""

COUNT = """
CREATE OR REPLACE FUNCTION escrow_counts(spender bigint, moment timestamptz) RETURNS escrow_count LANGUAGE plpgsql STABLE AS $$
DECLARE
    account escrow_account;
    count escrow_count;
    handed_on record;
    lent record;
BEGIN
    SELECT * INTO account FROM escrow_account WHERE id = spender;
    SELECT coalesce(sum(amount_micros), 0) - account.received_micros + account.sent_micros INTO count.total
    FROM escrow_transfer WHERE receiver_id = spender AND reason IN ('session_open', 'session_top_up');
    -- What was handed on to sessions inside is theirs to spend: what counts here is how much of it they may spend in a span.
    SELECT
        coalesce(sum(amount_micros) FILTER (WHERE created_at > moment - interval '1 hour'), 0) AS hour,
        coalesce(sum(amount_micros), 0) AS day, count(*) FILTER (WHERE created_at > moment - interval '1 minute') AS minute
    INTO handed_on FROM escrow_transfer
    WHERE sender_id = spender AND reason IN ('session_open', 'session_top_up') AND created_at > moment - interval '1 day';
    SELECT
        coalesce(sum(child.max_per_hour_micros) FILTER (WHERE child.ended > moment - interval '1 hour'), 0) AS hour,
        coalesce(sum(child.max_per_day_micros) FILTER (WHERE child.ended > moment - interval '1 day'), 0) AS day,
        coalesce(sum(child.max_tx_per_minute) FILTER (WHERE child.ended > moment - interval '1 minute'), 0) AS minute
    INTO lent FROM (
        SELECT child.*, coalesce(child.closed_at, 'infinity') AS ended
        FROM escrow_session AS parent JOIN escrow_session AS child ON child.parent_id = parent.id
        -- Of those that have ended only the last day's: no span is longer, and there can be any number of them.
        WHERE parent.account_id = spender AND (child.closed_at IS NULL OR child.closed_at > moment - interval '1 day')
    ) AS child;
    -- What had been sent before the first transfer of a window is one look into an index away from what was sent in it.
    count.hour := lent.hour - handed_on.hour + account.sent_micros - coalesce((
        SELECT sender_sent_micros - amount_micros FROM escrow_transfer
        WHERE sender_id = spender AND created_at > moment - interval '1 hour' ORDER BY created_at, id LIMIT 1
    ), account.sent_micros);
    count.day := lent.day - handed_on.day + account.sent_micros - coalesce((
        SELECT sender_sent_micros - amount_micros FROM escrow_transfer
        WHERE sender_id = spender AND created_at > moment - interval '1 day' ORDER BY created_at, id LIMIT 1
    ), account.sent_micros);
    count.minute := lent.minute - handed_on.minute + account.sent_count - coalesce((
        SELECT sender_nth - 1 FROM escrow_transfer
        WHERE sender_id = spender AND created_at > moment - interval '1 minute' ORDER BY created_at, id LIMIT 1
    ), account.sent_count);
    RETURN count;
END $$;
"""

JUDGE = """
CREATE FUNCTION escrow_judge(
    patient boolean, clock timestamptz, sessions uuid[], parties uuid[], amounts bigint[], keys text[], hashes bytea[],
    versions integer[], since timestamptz[], until timestamptz[], denials text[]
) RETURNS SETOF escrow_verdict LANGUAGE plpgsql
-- The tables grow to many millions of rows, the arrays stay small: always by index, and planned once.
SET plan_cache_mode = force_generic_plan SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off
AS $$
DECLARE
    held bigint[];
    moment timestamptz;
    asked record;
    verdict escrow_verdict;
    slot integer;
    so_far bigint;
    printed bytea;
    approval escrow_approval;
    count escrow_count;
    counts escrow_count[];
    pools uuid[] := array_fill(NULL::uuid, ARRAY[cardinality(sessions)]);
    is_taken boolean[] := array_fill(false, ARRAY[cardinality(sessions)]);
    is_asked boolean[] := array_fill(false, ARRAY[cardinality(sessions)]);
    spent bigint[] := array_fill(0::bigint, ARRAY[cardinality(sessions)]);
    sends bigint[] := array_fill(0::bigint, ARRAY[cardinality(sessions)]);
BEGIN
    -- In primary-key order, so that two batches never wait for each other in a circle.
    IF patient THEN
        SELECT array_agg(id) INTO held FROM (
            SELECT id FROM escrow_account WHERE id = ANY (escrow_accounts_of(sessions, parties))
            ORDER BY id FOR NO KEY UPDATE
        ) AS locked;
    ELSE
        SELECT array_agg(id) INTO held FROM (
            SELECT id FROM escrow_account WHERE id = ANY (escrow_accounts_of(sessions, parties))
            ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
        ) AS locked;
    END IF;
    held := coalesce(held, '{}');  -- of no row at all it would be NULL, and NULL holds nothing against anything
    moment := coalesce(clock, clock_timestamp());
    FOR asked IN
        WITH request AS (
            SELECT * FROM unnest(sessions, parties, amounts, keys, hashes, versions, since, until, denials)
                WITH ORDINALITY AS row (session_id, party_id, amount, key, hash, version, since, until, denial, ord)
        ), spender AS MATERIALIZED (
            SELECT
                session.*, array_position(sessions, session.id) AS slot, account.id = ANY(held) AS is_held, pool.payer_id,
                account.received_micros, account.sent_micros, account.sent_count,
                CASE
                    WHEN pool.status <> 'open' THEN 'pool_' || pool.status
                    WHEN moment >= pool.expires_at THEN 'pool_expired'
                    WHEN pool.frozen_at IS NOT NULL THEN 'pool_frozen'
                    WHEN session.status <> 'open' THEN 'session_' || session.status
                    WHEN moment >= session.expires_at THEN 'session_expired'
                END AS not_open,
                coalesce(session.max_total_micros, session.max_per_hour_micros, session.max_per_day_micros,
                    session.max_tx_per_minute) IS NOT NULL AS is_counted
            FROM escrow_session AS session
            JOIN escrow_pool AS pool ON pool.id = session.pool_id
            -- OFFSET 0: one look by index for each session, also in a plan that was made when the table was small.
            CROSS JOIN LATERAL (SELECT * FROM escrow_account WHERE id = session.account_id OFFSET 0) AS account
            WHERE session.id = ANY(sessions)
        )
        SELECT
            request.ord::integer, request.amount, request.party_id, request.key, request.hash, spender.id AS session_id,
            spender.pool_id, spender.payer_id, spender.account_id, payable.id AS payable_id, spender.slot,
            coalesce(payable.received_micros, 0) = 0 AND request.amount > spender.new_recipient_max_micros AS is_new_and_much,
            spender.new_recipient_max_micros, spender.approval_above_micros, spender.checkpoints_micros,
            spender.policy_version,
            spender.received_micros, spender.sent_micros, spender.sent_count,
            spender.is_counted, spender.max_total_micros, spender.max_per_hour_micros, spender.max_per_day_micros,
            spender.max_tx_per_minute,
            earlier.id AS earlier_id, earlier.created_at AS earlier_at, earlier.remaining_micros AS earlier_remaining,
            CASE
                WHEN earlier.id IS NOT NULL THEN
                    CASE WHEN earlier.request_hash = request.hash THEN 'replayed' ELSE 'key_conflict' END
                WHEN NOT spender.is_held OR payable.id <> ALL(held) THEN 'busy'
                WHEN payable.id IS NULL AND NOT EXISTS (SELECT FROM escrow_party WHERE id = request.party_id)
                THEN 'no_party'
                WHEN spender.not_open IS NOT NULL THEN spender.not_open
                WHEN request.version IS DISTINCT FROM spender.policy_version
                    OR moment < request.since OR moment >= request.until
                THEN 'stale'
                WHEN request.denial IS NOT NULL THEN 'denied'
                WHEN request.amount > spender.max_per_tx_micros THEN 'max_per_tx'
            END AS outcome,
            array_position(keys, request.key) < request.ord AS is_repeated,
            CASE
                WHEN request.version IS DISTINCT FROM spender.policy_version
                    OR moment < request.since OR moment >= request.until
                THEN jsonb_build_object('version', spender.policy_version, 'policy', spender.policy)
                WHEN request.denial IS NOT NULL THEN request.denial::jsonb
                WHEN request.amount > spender.max_per_tx_micros THEN jsonb_build_object('limit', spender.max_per_tx_micros)
            END AS facts
        FROM request
        JOIN spender ON spender.id = request.session_id
        LEFT JOIN LATERAL (
            SELECT id, received_micros FROM escrow_account
            WHERE code = 'payable:' || spender.pool_id || ':' || request.party_id OFFSET 0
        ) AS payable ON true
        LEFT JOIN LATERAL (
            SELECT id, request_hash, created_at, remaining_micros FROM escrow_payment
            WHERE session_id = request.session_id AND idempotency_key = request.key OFFSET 0
        ) AS earlier ON true
        ORDER BY request.ord
    LOOP
        slot := asked.slot;
        verdict := (
            asked.ord, asked.outcome, asked.earlier_id, coalesce(asked.earlier_at, moment), asked.earlier_remaining,
            asked.facts, asked.session_id, asked.pool_id, asked.payer_id, asked.party_id, asked.account_id, asked.payable_id,
            NULL, NULL, asked.policy_version, NULL
        );
        -- The same key twice in one batch: once the first is a payment, or a question to a person, the second is asked again
        -- and finds it.
        IF asked.is_repeated AND EXISTS (
            SELECT FROM unnest(array_positions(keys, keys[asked.ord])) AS place
            WHERE place < asked.ord AND sessions[place] = asked.session_id AND (is_taken[place] OR is_asked[place])
        ) THEN
            verdict.outcome := 'busy';
        END IF;
        IF verdict.outcome IS NOT NULL THEN
            RETURN NEXT verdict;
            CONTINUE;
        END IF;
        -- What the orders before it in this batch have spent counts too.
        so_far := spent[slot];
        IF asked.is_counted THEN
            IF counts[slot] IS NULL THEN
                counts[slot] := escrow_counts(asked.account_id, moment);
            END IF;
            count := counts[slot];
            verdict.facts := CASE
                WHEN count.total + so_far + asked.amount > asked.max_total_micros
                THEN jsonb_build_object('rule', 'max_total', 'limit', asked.max_total_micros, 'spent', count.total + so_far)
                WHEN count.hour + so_far + asked.amount > asked.max_per_hour_micros THEN jsonb_build_object(
                    'rule', 'max_per_hour', 'limit', asked.max_per_hour_micros, 'spent', count.hour + so_far)
                WHEN count.day + so_far + asked.amount > asked.max_per_day_micros
                THEN jsonb_build_object('rule', 'max_per_day', 'limit', asked.max_per_day_micros, 'spent', count.day + so_far)
                WHEN count.minute + sends[slot] >= asked.max_tx_per_minute
                THEN jsonb_build_object('rule', 'max_tx_per_minute', 'limit', asked.max_tx_per_minute)
            END;
        END IF;
        -- Somebody whom an order before it in this batch pays is new no more.
        IF asked.is_new_and_much AND NOT EXISTS (
            SELECT FROM unnest(array_positions(parties, asked.party_id)) AS place
            WHERE place < asked.ord AND is_taken[place] AND pools[place] = asked.pool_id
        ) THEN
            verdict.facts := jsonb_build_object('rule', 'new_recipient_max', 'limit', asked.new_recipient_max_micros);
        END IF;
        IF verdict.facts IS NOT NULL THEN
            verdict.outcome := verdict.facts->>'rule';
        ELSIF asked.sent_micros + so_far + asked.amount > asked.received_micros THEN
            verdict.outcome := 'insufficient_funds';
            verdict.remaining_micros := asked.received_micros - asked.sent_micros - so_far;
            IF NOT asked.is_counted THEN
                count := escrow_counts(asked.account_id, moment);
            END IF;
            verdict.facts := jsonb_build_object(
                'spent', count.total + so_far, 'budget', count.total + so_far + verdict.remaining_micros
            );
        ELSIF asked.amount > asked.approval_above_micros THEN
            printed := CASE
                WHEN asked.key IS NULL THEN asked.hash ELSE sha256(convert_to(asked.key, 'UTF8') || '\\x00'::bytea || asked.hash)
            END;
            SELECT * INTO approval FROM escrow_approval
            WHERE escrow_approval.session_id = asked.session_id AND escrow_approval.fingerprint = printed
                AND status <> 'expired';
            verdict.outcome := CASE
                WHEN approval.status = 'refused' THEN 'approval_refused'
                WHEN approval.status = 'approved' AND moment < approval.expires_at THEN NULL
                ELSE 'approval_required'
            END;
            IF verdict.outcome IS NOT NULL THEN
                is_asked[asked.ord] := true;
                verdict.facts := jsonb_build_object(
                    'limit', asked.approval_above_micros, 'approval_id', coalesce(approval.id, uuidv7()),
                    'fingerprint', encode(printed, 'hex'), 'reason', approval.reason
                );
            END IF;
        END IF;
        IF verdict.outcome IS NULL THEN
            so_far := so_far + asked.amount;
            spent[slot] := so_far;
            sends[slot] := sends[slot] + 1;
            is_taken[asked.ord] := true;
            pools[asked.ord] := asked.pool_id;
            verdict.outcome := 'allowed';
            verdict.payment_id := uuidv7();
            verdict.sent_micros := asked.sent_micros + so_far;
            verdict.sent_count := asked.sent_count + sends[slot];
            verdict.remaining_micros := asked.received_micros - verdict.sent_micros;
            FOR place IN 1 .. cardinality(asked.checkpoints_micros) LOOP
                IF verdict.remaining_micros <= asked.checkpoints_micros[place]
                    AND verdict.remaining_micros + asked.amount > asked.checkpoints_micros[place]
                THEN
                    verdict.checkpoint := place;
                END IF;
            END LOOP;
        END IF;
        RETURN NEXT verdict;
    END LOOP;
END $$;
"""

SEND = """
CREATE FUNCTION escrow_open_payables(payments escrow_verdict[]) RETURNS escrow_verdict[] LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO escrow_account (code, kind, pool_id, party_id, sent_micros, received_micros, sent_count)
    SELECT DISTINCT 'payable:' || pool_id || ':' || party_id, 'payable', pool_id, party_id, 0, 0, 0
    FROM unnest(payments) WHERE payable_id IS NULL
    ORDER BY 1 ON CONFLICT (code) DO NOTHING;
    FOR at IN 1 .. cardinality(payments) LOOP
        payments[at].payable_id := (
            SELECT id FROM escrow_account
            WHERE code = 'payable:' || payments[at].pool_id || ':' || payments[at].party_id
        );
    END LOOP;
    RETURN payments;
END $$;

CREATE FUNCTION escrow_usdc(micros bigint) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    -- As escrow.money.render: two to six decimals.
    SELECT round(micros / 1000000.0, greatest(2, scale(trim_scale(micros / 1000000.0))))::text
$$;

CREATE FUNCTION escrow_tell_checkpoints(payments escrow_verdict[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO escrow_event (payer_id, type, subject_type, subject_id, payload)
    SELECT
        payment.payer_id, 'session.checkpoint', 'session', session.id,
        jsonb_build_object(
            'checkpoint',
            coalesce(session.policy->'checkpoint_at', '["0.5", "0.8", "0.95"]')->>(payment.checkpoint - 1),
            'remaining', escrow_usdc(payment.remaining_micros)
        )
    FROM unnest(payments) AS payment
    JOIN escrow_session AS session ON session.id = payment.session_id
    WHERE payment.checkpoint IS NOT NULL
    ORDER BY payment.ord;
END $$;

CREATE FUNCTION escrow_send(
    patient boolean, clock timestamptz, approval_window interval, sessions uuid[], parties uuid[], recipients text[],
    amounts bigint[], shown text[], metadata text[], capabilities text[], keys text[], hashes bytea[], versions integer[],
    since timestamptz[], until timestamptz[], denials text[]
) RETURNS TABLE (ord integer, outcome text, payment_id uuid, at timestamptz, remaining_micros bigint, facts jsonb)
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    verdicts escrow_verdict[];
    allowed escrow_verdict[];
    refused escrow_verdict[];
    is_new boolean;
    has_checkpoint boolean;
BEGIN
    SELECT
        array_agg(verdict), array_agg(verdict) FILTER (WHERE verdict.outcome = 'allowed'),
        array_agg(verdict) FILTER (
            WHERE verdict.outcome NOT IN ('allowed', 'replayed', 'key_conflict', 'busy', 'stale', 'no_party')
        ),
        bool_or(verdict.outcome = 'allowed' AND verdict.payable_id IS NULL), bool_or(verdict.checkpoint IS NOT NULL)
    INTO verdicts, allowed, refused, is_new, has_checkpoint
    FROM escrow_judge(
        patient, clock, sessions, parties, amounts, keys, hashes, versions, since, until, denials
    ) AS verdict;
    IF is_new THEN
        allowed := escrow_open_payables(allowed);
    END IF;
    IF allowed IS NOT NULL THEN
        WITH payment AS MATERIALIZED (
            SELECT * FROM unnest(allowed)
        ), paid AS (
            INSERT INTO escrow_payment (
                id, session_id, pool_id, party_id, payer_id, kind, status, "to", amount_micros, metadata,
                idempotency_key, request_hash, remaining_micros, redeemed_hash, reason, created_at, capability,
                policy_version
            )
            SELECT
                payment.payment_id, payment.session_id, payment.pool_id, payment.party_id, payment.payer_id, 'call',
                'payable', recipients[payment.ord], amounts[payment.ord], metadata[payment.ord]::jsonb,
                keys[payment.ord], hashes[payment.ord], payment.remaining_micros, '', '', payment.at,
                capabilities[payment.ord], payment.policy_version
            FROM payment
        )
        INSERT INTO escrow_event (payer_id, party_id, type, subject_type, subject_id, payload)
        SELECT
            payment.payer_id, payment.party_id, 'payment.created', 'payment', payment.payment_id,
            jsonb_build_object(
                'session_id', payment.session_id, 'to', recipients[payment.ord], 'kind', 'call',
                'amount', shown[payment.ord]
            )
        FROM payment;
        -- The sums are running ones already, under the judge's locks; the trigger holds them against the accounts.
        INSERT INTO escrow_transfer (
            sender_id, receiver_id, amount_micros, reason, ref, sender_sent_micros, sender_nth, created_at
        )
        SELECT
            payment.account_id, payment.payable_id, amounts[payment.ord], 'payment', payment.payment_id::text,
            payment.sent_micros, payment.sent_count, payment.at
        FROM unnest(allowed) AS payment;
        IF has_checkpoint THEN
            PERFORM escrow_tell_checkpoints(allowed);
        END IF;
    END IF;
    IF refused IS NOT NULL THEN
        INSERT INTO escrow_denial (
            session_id, payer_id, party_id, kind, rule, policy_version, "to", capability, amount_micros, facts, created_at
        )
        SELECT
            denial.session_id, denial.payer_id, denial.party_id, 'payment',
            CASE WHEN denial.outcome = 'denied' THEN denial.facts->>'rule' ELSE denial.outcome END, denial.policy_version,
            recipients[denial.ord], capabilities[denial.ord], amounts[denial.ord],
            coalesce(denial.facts, '{}') - 'fingerprint' || jsonb_build_object('remaining', denial.remaining_micros), denial.at
        FROM unnest(refused) AS denial;
        WITH asked AS (
            INSERT INTO escrow_approval (
                id, session_id, payer_id, kind, fingerprint, "to", capability, amount_micros, metadata, status, reason,
                decided_by, created_at, expires_at
            )
            SELECT
                (denial.facts->>'approval_id')::uuid, denial.session_id, denial.payer_id, 'payment',
                decode(denial.facts->>'fingerprint', 'hex'), recipients[denial.ord], capabilities[denial.ord],
                amounts[denial.ord], metadata[denial.ord]::jsonb, 'waiting', '', '', denial.at, denial.at + approval_window
            FROM unnest(refused) AS denial WHERE denial.outcome = 'approval_required'
            ON CONFLICT DO NOTHING
            RETURNING *
        )
        INSERT INTO escrow_event (payer_id, type, subject_type, subject_id, payload)
        SELECT
            payer_id, 'approval.requested', 'approval', id,
            jsonb_build_object('session_id', session_id, 'to', "to", 'amount', escrow_usdc(amount_micros))
        FROM asked;
    END IF;
    RETURN QUERY
        SELECT verdict.ord, verdict.outcome, verdict.payment_id, verdict.at, verdict.remaining_micros, verdict.facts
        FROM unnest(verdicts) AS verdict;
END $$;
"""


class Migration(migrations.Migration):
    dependencies = [("escrow", "0005_policies")]
    operations = [migrations.RunSQL(GUARD + DROP + COUNT + JUDGE + SEND)]
