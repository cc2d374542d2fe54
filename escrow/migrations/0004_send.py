"""The hot path: one statement authorises a batch of payments, each on its own; another writes every transfer.

`escrow.ledger.post` calls `escrow_post`; `escrow.sessions` calls `escrow_judge`; `escrow.payments` and the lane call
`escrow_send`. There is no way back: the release before could not read what this one has written.
"""

from django.db import migrations

POST = """
-- Both sums of a busy account change with every batch: with room on its page the new version stays there, out of the indexes.
ALTER TABLE escrow_account SET (fillfactor = 50);

CREATE FUNCTION escrow_post(
    senders bigint[], receivers bigint[], amounts bigint[], reasons text[], refs text[]
) RETURNS void LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    -- In primary-key order, both sides: the running sums below are of accounts that nobody else can move meanwhile.
    PERFORM 1 FROM escrow_account
    WHERE id IN (SELECT unnest(senders) UNION SELECT unnest(receivers)) ORDER BY id FOR NO KEY UPDATE;
    INSERT INTO escrow_transfer (
        sender_id, receiver_id, amount_micros, reason, ref, sender_sent_micros, sender_nth, created_at
    )
    SELECT
        move.sender, move.receiver, move.amount, move.reason, move.ref,
        account.sent_micros + sum(move.amount) OVER earlier, account.sent_count + count(*) OVER earlier,
        clock_timestamp()
    FROM unnest(senders, receivers, amounts, reasons, refs)
        WITH ORDINALITY AS move (sender, receiver, amount, reason, ref, ord)
    JOIN escrow_account AS account ON account.id = move.sender
    WINDOW earlier AS (PARTITION BY move.sender ORDER BY move.ord)
    ORDER BY move.ord;
END $$;

CREATE OR REPLACE FUNCTION escrow_apply_transfers() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    moved integer;
BEGIN
    UPDATE escrow_account AS account
    SET sent_micros = account.sent_micros + change.sent, received_micros = account.received_micros + change.received,
        sent_count = account.sent_count + change.sends
    FROM (
        SELECT id, sum(sent)::bigint AS sent, sum(received)::bigint AS received, count(nth) AS sends,
            min(nth) AS first, max(nth) AS last, min(total - sent) AS before, max(total) AS after
        FROM (
            SELECT sender_id AS id, amount_micros AS sent, 0::bigint AS received, sender_nth AS nth,
                sender_sent_micros AS total
            FROM added
            UNION ALL
            SELECT receiver_id, 0, amount_micros, NULL, NULL FROM added
        ) AS side
        GROUP BY id
    ) AS change
    WHERE account.id = change.id AND (
        change.sends = 0
        OR (change.first, change.last, change.before, change.after) = (
            account.sent_count + 1, account.sent_count + change.sends,
            account.sent_micros, account.sent_micros + change.sent
        )
    );
    GET DIAGNOSTICS moved = ROW_COUNT;
    IF moved <> (SELECT count(*) FROM (SELECT sender_id FROM added UNION SELECT receiver_id FROM added) AS account) THEN
        RAISE EXCEPTION 'a transfer of no account, or with another running sum than its sender has'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END $$;
"""

JUDGE = """
CREATE TYPE escrow_verdict AS (
    ord integer, outcome text, payment_id uuid, at timestamptz, remaining_micros bigint, facts jsonb,
    session_id uuid, pool_id uuid, payer_id uuid, party_id uuid, account_id bigint, payable_id bigint,
    sent_micros bigint, sent_count bigint
);

CREATE TYPE escrow_count AS (total bigint, hour bigint, day bigint, minute bigint);

CREATE FUNCTION escrow_counts(spender bigint, moment timestamptz) RETURNS escrow_count LANGUAGE plpgsql STABLE AS $$
DECLARE
    account escrow_account;
    count escrow_count;
BEGIN
    SELECT * INTO account FROM escrow_account WHERE id = spender;
    SELECT coalesce(sum(amount_micros), 0) - account.received_micros + account.sent_micros INTO count.total
    FROM escrow_transfer WHERE receiver_id = spender AND reason IN ('session_open', 'session_top_up');
    -- What had been sent before the first transfer of a window is one look into an index away from what was sent in it.
    count.hour := account.sent_micros - coalesce((
        SELECT sender_sent_micros - amount_micros FROM escrow_transfer
        WHERE sender_id = spender AND created_at > moment - interval '1 hour' ORDER BY created_at, id LIMIT 1
    ), account.sent_micros);
    count.day := account.sent_micros - coalesce((
        SELECT sender_sent_micros - amount_micros FROM escrow_transfer
        WHERE sender_id = spender AND created_at > moment - interval '1 day' ORDER BY created_at, id LIMIT 1
    ), account.sent_micros);
    count.minute := account.sent_count - coalesce((
        SELECT sender_nth - 1 FROM escrow_transfer
        WHERE sender_id = spender AND created_at > moment - interval '1 minute' ORDER BY created_at, id LIMIT 1
    ), account.sent_count);
    RETURN count;
END $$;

CREATE FUNCTION escrow_accounts_of(sessions uuid[], parties uuid[]) RETURNS bigint[] LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT array_agg(spender.account_id) || array_agg(payable.id)
        FROM (SELECT DISTINCT session, party FROM unnest(sessions, parties) AS pair (session, party)) AS pair
        JOIN escrow_session AS spender ON spender.id = pair.session
        LEFT JOIN LATERAL (
            SELECT id FROM escrow_account WHERE code = 'payable:' || spender.pool_id || ':' || pair.party OFFSET 0
        ) AS payable ON true
    );
END $$;

CREATE FUNCTION escrow_judge(
    patient boolean, clock timestamptz, sessions uuid[], parties uuid[], amounts bigint[], keys text[], hashes bytea[],
    versions integer[], since timestamptz[], until timestamptz[], denied boolean[]
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
    count escrow_count;
    counts escrow_count[];
    is_taken boolean[] := array_fill(false, ARRAY[cardinality(sessions)]);
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
            SELECT * FROM unnest(sessions, parties, amounts, keys, hashes, versions, since, until, denied)
                WITH ORDINALITY AS row (session_id, party_id, amount, key, hash, version, since, until, denied, ord)
        ), spender AS MATERIALIZED (
            SELECT
                session.*, array_position(sessions, session.id) AS slot, account.id = ANY(held) AS is_held, pool.payer_id,
                account.received_micros, account.sent_micros, account.sent_count,
                CASE
                    WHEN pool.status <> 'open' THEN 'pool_' || pool.status
                    WHEN moment >= pool.expires_at THEN 'pool_expired'
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
            request.ord::integer, request.amount, request.party_id, spender.id AS session_id, spender.pool_id,
            spender.payer_id, spender.account_id, payable.id AS payable_id, spender.slot,
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
                WHEN request.denied THEN 'denied'
                WHEN request.amount > spender.max_per_tx_micros THEN 'max_per_tx'
            END AS outcome,
            array_position(keys, request.key) < request.ord AS is_repeated,
            CASE
                WHEN request.version IS DISTINCT FROM spender.policy_version
                    OR moment < request.since OR moment >= request.until
                THEN jsonb_build_object('version', spender.policy_version, 'policy', spender.policy)
                WHEN request.amount > spender.max_per_tx_micros THEN jsonb_build_object('limit', spender.max_per_tx_micros)
            END AS facts
        FROM request
        JOIN spender ON spender.id = request.session_id
        LEFT JOIN LATERAL (
            SELECT id FROM escrow_account
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
            NULL, NULL
        );
        -- The same key twice in one batch: once the first is a payment, the second is asked again and finds it.
        IF asked.is_repeated AND EXISTS (
            SELECT FROM unnest(array_positions(keys, keys[asked.ord])) AS place
            WHERE place < asked.ord AND sessions[place] = asked.session_id AND is_taken[place]
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
        IF verdict.facts IS NOT NULL THEN
            verdict.outcome := verdict.facts->>'rule';
        ELSIF asked.sent_micros + so_far + asked.amount > asked.received_micros THEN
            verdict.outcome := 'insufficient_funds';
            verdict.remaining_micros := asked.received_micros - asked.sent_micros - so_far;
        ELSE
            so_far := so_far + asked.amount;
            spent[slot] := so_far;
            sends[slot] := sends[slot] + 1;
            is_taken[asked.ord] := true;
            verdict.outcome := 'allowed';
            verdict.payment_id := uuidv7();
            verdict.sent_micros := asked.sent_micros + so_far;
            verdict.sent_count := asked.sent_count + sends[slot];
            verdict.remaining_micros := asked.received_micros - verdict.sent_micros;
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

CREATE FUNCTION escrow_send(
    patient boolean, clock timestamptz, sessions uuid[], parties uuid[], recipients text[], amounts bigint[], shown text[],
    metadata text[], keys text[], hashes bytea[], versions integer[], since timestamptz[], until timestamptz[],
    denied boolean[]
) RETURNS TABLE (ord integer, outcome text, payment_id uuid, at timestamptz, remaining_micros bigint, facts jsonb)
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    verdicts escrow_verdict[];
    allowed escrow_verdict[];
    is_new boolean;
BEGIN
    SELECT
        array_agg(verdict), array_agg(verdict) FILTER (WHERE verdict.outcome = 'allowed'),
        bool_or(verdict.outcome = 'allowed' AND verdict.payable_id IS NULL)
    INTO verdicts, allowed, is_new
    FROM escrow_judge(
        patient, clock, sessions, parties, amounts, keys, hashes, versions, since, until, denied
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
                idempotency_key, request_hash, remaining_micros, redeemed_hash, reason, created_at
            )
            SELECT
                payment.payment_id, payment.session_id, payment.pool_id, payment.party_id, payment.payer_id, 'call',
                'payable', recipients[payment.ord], amounts[payment.ord], metadata[payment.ord]::jsonb,
                keys[payment.ord], hashes[payment.ord], payment.remaining_micros, '', '', payment.at
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
    END IF;
    RETURN QUERY
        SELECT verdict.ord, verdict.outcome, verdict.payment_id, verdict.at, verdict.remaining_micros, verdict.facts
        FROM unnest(verdicts) AS verdict;
END $$;
"""

TELL = """
CREATE FUNCTION escrow_number_transaction() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_current_xact_id();
    RETURN NULL;
END $$;

-- Before any id is drawn: escrow.events.publish relies on the order of the two.
CREATE TRIGGER events_come_after_their_number BEFORE INSERT ON escrow_event
    FOR EACH STATEMENT EXECUTE FUNCTION escrow_number_transaction();
"""


class Migration(migrations.Migration):
    dependencies = [("escrow", "0003_spending")]
    operations = [migrations.RunSQL(POST + JUDGE + SEND + TELL)]
