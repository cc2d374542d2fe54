"""What happened, once and in order: R4 and R6 to R10 as far as our own rows say. Statements for `escrow.checks`."""

from typing import Final

from escrow.checks import Check

MIRRORED: Final = Check(
    "R4",
    ("transfers", "logs read"),
    """
    SELECT coalesce(moved.pool_id, told.pool_id)::text, coalesce(moved.reason, told.reason) || ' '
        || coalesce(moved.ref, told.ref),
        coalesce(moved.micros, 0), coalesce(told.micros, 0),
        CASE WHEN told.ref IS NULL THEN 'a transfer that no log explains'
            WHEN moved.ref IS NULL THEN 'a log without its transfer'
        ELSE '' END
    FROM (
        SELECT transfer.ref, transfer.reason, min(sender.pool_id::text)::uuid AS pool_id, sum(transfer.amount_micros) AS micros
        FROM escrow_transfer AS transfer JOIN account AS sender ON sender.id = transfer.sender_id
        WHERE transfer.reason IN ('deposit', 'credit', 'payout', 'fee', 'reclaim')
            OR (transfer.reason IN ('dispute', 'ruling') AND sender.kind IN ('credited', 'contested'))
        GROUP BY 1, 2
    ) AS moved
    FULL JOIN (SELECT told.* FROM (
        SELECT log.ref, log.pool_id, sum(told.micros) AS micros, told.reason
    FROM escrow_chainlog AS log CROSS JOIN LATERAL (VALUES
        ('PoolOpened', 'deposit', log.args->>'deposit'), ('PoolToppedUp', 'deposit', log.args->>'amount'),
        ('BatchSettled', 'credit', log.args->>'total'), ('Withdrawn', 'payout', log.args->>'net'),
        ('Withdrawn', 'fee', log.args->>'fee'), ('Reclaimed', 'reclaim', log.args->>'amount'),
        ('Disputed', 'dispute', log.args->>'amount'), ('DisputeResolved', 'ruling', log.args->>'to_provider'),
        ('DisputeResolved', 'ruling', log.args->>'to_payer')
    ) AS raw (event, reason, amount) CROSS JOIN LATERAL (SELECT raw.reason, raw.amount::bigint AS micros) AS told
    WHERE log.event = raw.event AND log.pool_id IS NOT NULL AND log.applied_at IS NOT NULL
        GROUP BY 1, 2, 4 HAVING sum(told.micros) > 0
    ) AS told JOIN scope ON scope.id = told.pool_id) AS told
        ON told.ref = moved.ref AND told.reason = moved.reason
    WHERE moved.micros IS DISTINCT FROM told.micros
    """,
)
SETTLED: Final = Check(
    "R6",
    ("batches", "BatchSettled logs"),
    """
    SELECT batch.pool_id::text, 'batch ' || batch.id, CASE batch.status WHEN 'settled' THEN 1 ELSE 0 END,
        coalesce(told.times, 0),
        batch.status || ', ' || batch.root || ' for ' || record.micros || '; told ' || coalesce(told.root, 'nothing')
            || coalesce(' for ' || told.micros, '')
    FROM escrow_batch AS batch JOIN scope ON scope.id = batch.pool_id
    JOIN (SELECT batch_id, sum(amount_micros) AS micros, count(*) AS count FROM escrow_batchrecord GROUP BY 1) AS record
        ON record.batch_id = batch.id
    LEFT JOIN (
        SELECT pool_id, args->>'first_seq' AS first_seq, count(*) AS times, min(args->>'root') AS root,
            min((args->>'total')::bigint) AS micros, min((args->>'count')::bigint) AS count
        FROM escrow_chainlog WHERE event = 'BatchSettled' AND applied_at IS NOT NULL GROUP BY 1, 2
    ) AS told ON told.pool_id = batch.pool_id AND told.first_seq = batch.first_seq::text
    WHERE coalesce(told.times, 0) <> CASE batch.status WHEN 'settled' THEN 1 ELSE 0 END
        OR (told.times = 1 AND (told.root, told.micros, told.count) IS DISTINCT FROM (batch.root, record.micros, record.count))
    """,
)
CREDITED: Final = Check(
    "R6",
    ("batch records", "Credited logs"),
    """
    SELECT coalesce(ours.pool_id, told.pool_id)::text, 'batch at ' || coalesce(ours.first_seq, told.first_seq) || ' to '
        || coalesce(ours.address, told.address), coalesce(ours.micros, 0), coalesce(told.micros, 0), ''
    FROM (
        SELECT batch.pool_id, batch.first_seq::text AS first_seq, party.address, sum(record.amount_micros) AS micros
        FROM escrow_batch AS batch JOIN scope ON scope.id = batch.pool_id
        JOIN escrow_batchrecord AS record ON record.batch_id = batch.id JOIN escrow_party AS party ON party.id = record.party_id
        WHERE batch.status = 'settled' GROUP BY 1, 2, 3
    ) AS ours
    FULL JOIN (
        SELECT log.pool_id, log.args->>'first_seq' AS first_seq, log.args->>'provider' AS address,
            sum((log.args->>'amount')::bigint) AS micros
        FROM escrow_chainlog AS log JOIN scope ON scope.id = log.pool_id
        WHERE log.event = 'Credited' AND log.applied_at IS NOT NULL GROUP BY 1, 2, 3
    ) AS told ON told.pool_id = ours.pool_id AND told.first_seq = ours.first_seq AND told.address = ours.address
    WHERE ours.micros IS DISTINCT FROM told.micros
    """,
)
NONCES: Final = Check(
    "R7",
    ("chain actions", "nonces counted"),
    """
    SELECT 'signer ' || counted.address, 'nonces', coalesce(used.times, 0), counted.next_nonce - coalesce(used.first,
        counted.next_nonce), 'from ' || coalesce(used.first, 0) || ' to ' || coalesce(used.last, 0)
    FROM escrow_signernonce AS counted
    LEFT JOIN (
        SELECT signer_address, count(*) AS times, min(nonce) AS first, max(nonce) AS last
        FROM escrow_chainaction WHERE nonce IS NOT NULL GROUP BY 1
    ) AS used ON used.signer_address = counted.address
    WHERE used.times > counted.next_nonce - used.first OR (used.times < counted.next_nonce - used.first AND NOT EXISTS (
        -- A person may have had a stopped signer go on from the chain's own nonce: the gap is that person's word.
        SELECT FROM escrow_remedy AS remedy WHERE remedy.signer_id = counted.id AND remedy.kind = 'clear_signer'
    ))
    """,
)
LIMITS: Final = Check(
    "R8",
    ("payments and holds", "policy"),
    """
    , asked AS (
        SELECT account.pool_id, account.id AS account_id, account.code, transfer.created_at, transfer.id,
            transfer.amount_micros,
            transfer.ref, coalesce(payment.policy_version, hold.policy_version) AS version, session.id AS session_id
        FROM escrow_session AS session JOIN account ON account.id = session.account_id
        JOIN escrow_transfer AS transfer ON transfer.sender_id = account.id AND transfer.reason IN ('payment', 'hold')
        LEFT JOIN escrow_payment AS payment ON payment.id::text = transfer.ref AND transfer.reason = 'payment'
        LEFT JOIN escrow_hold AS hold ON hold.id::text = transfer.ref AND transfer.reason = 'hold'
        WHERE EXISTS (
            SELECT FROM escrow_sessionpolicy AS version WHERE version.session_id = session.id AND version.policy
                ?| ARRAY['max_per_tx', 'max_per_hour', 'max_per_day', 'max_tx_per_minute']
        )
    ), counted AS (
        SELECT asked.*, sum(amount_micros) OVER hour AS hour, sum(amount_micros) OVER day AS day, count(*) OVER minute AS minute
        FROM asked WINDOW
            hour AS (PARTITION BY account_id ORDER BY created_at RANGE '3599.999999 seconds' PRECEDING),
            day AS (PARTITION BY account_id ORDER BY created_at RANGE '86399.999999 seconds' PRECEDING),
            minute AS (PARTITION BY account_id ORDER BY created_at RANGE '59.999999 seconds' PRECEDING)
    )
    SELECT counted.pool_id::text, counted.code || ', ' || broken.rule, broken.spent, broken.most, counted.ref
    FROM counted JOIN escrow_sessionpolicy AS version
        ON version.session_id = counted.session_id AND version.version = counted.version
    CROSS JOIN LATERAL (VALUES
        ('max_per_tx', counted.amount_micros, ((version.policy->>'max_per_tx')::numeric * 1000000)::bigint),
        ('max_per_hour', counted.hour, ((version.policy->>'max_per_hour')::numeric * 1000000)::bigint),
        ('max_per_day', counted.day, ((version.policy->>'max_per_day')::numeric * 1000000)::bigint),
        ('max_tx_per_minute', counted.minute, (version.policy->>'max_tx_per_minute')::bigint)
    ) AS broken (rule, spent, most)
    WHERE broken.spent > broken.most
    """,
)
BUDGETS: Final = Check(
    "R8",
    ("transfers", "budgets"),
    """
    SELECT account.pool_id::text, account.code, max(sent.sender_sent_micros), account.received_micros, 'more sent than received'
    FROM account JOIN escrow_transfer AS sent ON sent.sender_id = account.id
    WHERE account.kind = 'session' GROUP BY account.pool_id, account.code, account.received_micros
    HAVING max(sent.sender_sent_micros) > account.received_micros
    """,
)
EVENTS: Final = Check(
    "R9",
    ("transitions", "events"),
    """
    SELECT step.pool_id::text, step.type || ' of ' || step.id, 1, coalesce(told.times, 0), ''
    FROM (
        SELECT payment.pool_id, payment.id, 'payment.created' AS type, true AS once
        FROM escrow_payment AS payment JOIN scope ON scope.id = payment.pool_id
        UNION ALL SELECT payment.pool_id, payment.id, 'payment.refunded', false FROM escrow_payment AS payment
            JOIN scope ON scope.id = payment.pool_id WHERE payment.refunded_micros = payment.amount_micros
        UNION ALL SELECT batch.pool_id, batch.id, 'batch.signed', false FROM escrow_batch AS batch
            JOIN scope ON scope.id = batch.pool_id
        UNION ALL SELECT batch.pool_id, batch.id, CASE batch.status WHEN 'settled' THEN 'batch.settled' ELSE 'batch.voided' END,
            false FROM escrow_batch AS batch JOIN scope ON scope.id = batch.pool_id WHERE batch.status <> 'signed'
        UNION ALL SELECT scope.id, scope.id, 'pool.opened', true FROM scope WHERE opened_at IS NOT NULL
        UNION ALL SELECT payment.pool_id, refund.id, 'refund.paid', true FROM escrow_refund AS refund
            JOIN escrow_payment AS payment ON payment.id = refund.payment_id JOIN scope ON scope.id = payment.pool_id
            WHERE refund.status = 'paid'
        UNION ALL SELECT session.pool_id, hold.id, 'hold.placed', true FROM escrow_hold AS hold
            JOIN escrow_session AS session ON session.id = hold.session_id JOIN scope ON scope.id = session.pool_id
    ) AS step
    LEFT JOIN (
        SELECT subject_id, type, count(*) AS times FROM escrow_event WHERE type IN (
            'payment.created', 'payment.refunded', 'batch.signed', 'batch.settled', 'batch.voided', 'pool.opened',
            'refund.paid', 'hold.placed'
        ) GROUP BY 1, 2
    ) AS told ON told.subject_id = step.id AND told.type = step.type
    WHERE CASE WHEN step.once THEN coalesce(told.times, 0) <> 1
        WHEN step.type LIKE 'batch.%%' THEN coalesce(told.times, 0) <> 1 + (
            SELECT count(DISTINCT party_id) FROM escrow_batchrecord WHERE batch_id = step.id)
        ELSE coalesce(told.times, 0) = 0 END
    """,
)
ENDED: Final = Check(
    "R10",
    ("batches", "pools"),
    """
    SELECT scope.id::text, 'batch ' || batch.id, 1, 0, 'landed at ' || batch.settled_at || ', the pool ended at '
        || least(scope.expires_at, scope.reclaimable_at)
    FROM escrow_batch AS batch JOIN scope ON scope.id = batch.pool_id
    WHERE batch.status = 'settled' AND (batch.settled_at >= scope.expires_at OR batch.settled_at > scope.reclaimable_at
        -- Without a delay a pool may end in the very second in which a batch has landed before.
        OR batch.settled_at = scope.reclaimable_at AND scope.reclaimable_at > scope.close_requested_at)
    """,
)
OVERDUE: Final = Check(
    "R10",
    ("holds", "their limit"),
    """
    SELECT scope.id::text, 'hold ' || hold.id, account.received_micros - account.sent_micros, 0,
        'it ended at ' || hold.expires_at || '; is the worker running?'
    FROM escrow_hold AS hold JOIN escrow_account AS account ON account.id = hold.account_id
    JOIN scope ON scope.id = account.pool_id
    WHERE hold.status = 'held' AND hold.expires_at < now() - make_interval(secs => %(late)s) AND scope.status <> 'closed'
    """,
)

CHECKS: Final = (MIRRORED, SETTLED, CREDITED, LIMITS, BUDGETS, EVENTS, ENDED, OVERDUE)
OF_SIGNERS: Final = (NONCES,)
