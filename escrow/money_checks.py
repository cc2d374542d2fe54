"""Where money is, against the rows that say why: R1 to R3. Statements for `escrow.checks`; the words are the ledger's.

Closed pools are left out where money is held against rows: one that was reclaimed past us has rows without money, and both
sides know.
"""

from typing import Final

from escrow.checks import Check

MOVES: Final = Check(
    "R1",
    ("transfers", "what a reason allows"),
    """
    SELECT sender.pool_id::text, transfer.reason || ' ' || transfer.ref, transfer.amount_micros, 0,
        'from ' || sender.code || ' to ' || receiver.code
    FROM escrow_transfer AS transfer
    JOIN account AS sender ON sender.id = transfer.sender_id
    JOIN escrow_account AS receiver ON receiver.id = transfer.receiver_id
    WHERE (transfer.reason, sender.kind, receiver.kind) NOT IN (
        ('deposit', 'world', 'pool'), ('session_open', 'pool', 'session'), ('session_open', 'session', 'session'),
        ('session_top_up', 'pool', 'session'), ('session_top_up', 'session', 'session'),
        ('session_close', 'session', 'pool'), ('session_close', 'session', 'session'),
        ('payment', 'session', 'payable'), ('refund', 'payable', 'session'), ('refund', 'payable', 'pool'),
        ('hold', 'session', 'hold'), ('capture', 'hold', 'payable'), ('release', 'hold', 'session'),
        ('release', 'hold', 'pool'), ('dispute', 'hold', 'dispute'), ('dispute', 'payable', 'dispute'),
        ('dispute', 'credited', 'contested'), ('ruling', 'dispute', 'session'), ('ruling', 'dispute', 'pool'),
        ('ruling', 'dispute', 'payable'), ('ruling', 'contested', 'credited'), ('ruling', 'contested', 'pool'),
        ('settle', 'payable', 'settling'), ('settle_void', 'settling', 'payable'), ('credit', 'settling', 'credited'),
        ('payout', 'credited', 'world'), ('fee', 'credited', 'fees'), ('reclaim', 'pool', 'world'),
        ('reclaim_sweep', 'session', 'pool'), ('reclaim_sweep', 'hold', 'pool'), ('reclaim_sweep', 'payable', 'pool'),
        ('reclaim_sweep', 'settling', 'pool'), ('reclaim_sweep', 'dispute', 'pool')
    ) OR (receiver.pool_id IS DISTINCT FROM sender.pool_id AND transfer.reason <> 'fee')
    """,
)
SESSIONS: Final = Check(
    "R1",
    ("transfers", "sessions"),
    """
    SELECT sender.pool_id::text, transfer.reason || ' ' || transfer.ref, transfer.amount_micros, 0, 'there is no such session'
    FROM escrow_transfer AS transfer
    JOIN account AS sender ON sender.id = transfer.sender_id
    LEFT JOIN escrow_session AS session ON session.id::text = transfer.ref AND session.account_id =
        CASE transfer.reason WHEN 'session_open' THEN transfer.receiver_id ELSE transfer.sender_id END
    WHERE transfer.reason IN ('session_open', 'session_close') AND session.id IS NULL
    """,
)
PAYMENTS: Final = Check(
    "R3",
    ("payments", "transfers"),
    """
    SELECT coalesce(payment.pool_id, moved.pool_id)::text, 'payment ' || coalesce(payment.id::text, moved.ref),
        coalesce(payment.amount_micros, 0), coalesce(moved.micros, 0),
        CASE WHEN payment.id IS NULL THEN 'a transfer without a payment'
            WHEN moved.ref IS NULL THEN 'a payment without a transfer'
        ELSE moved.times || ' transfers, to party ' || moved.party_id END
    FROM (SELECT payment.* FROM escrow_payment AS payment JOIN scope ON scope.id = payment.pool_id) AS payment
    FULL JOIN (
        SELECT transfer.ref, sum(transfer.amount_micros) AS micros, count(*) AS times,
            min(receiver.party_id::text)::uuid AS party_id, min(receiver.pool_id::text)::uuid AS pool_id
        FROM escrow_transfer AS transfer JOIN account AS receiver ON receiver.id = transfer.receiver_id
        WHERE (transfer.reason IN ('payment', 'capture') OR (transfer.reason = 'ruling' AND receiver.kind = 'payable'))
        GROUP BY 1
    ) AS moved ON moved.ref = payment.id::text
    WHERE payment.id IS NULL OR moved.ref IS NULL OR moved.times <> 1 OR moved.micros <> payment.amount_micros
        OR moved.party_id <> payment.party_id OR moved.pool_id <> payment.pool_id
    """,
)
PAYABLE: Final = Check(
    "R3",
    ("transfers", "payments"),
    """
    SELECT account.pool_id::text, account.code, balance.micros, coalesce(owed.micros, 0), ''
    FROM account JOIN balance ON balance.id = account.id
    LEFT JOIN (
        SELECT pool_id, party_id, sum(amount_micros - deducted_micros) AS micros FROM escrow_payment
        WHERE status = 'payable' GROUP BY 1, 2
    ) AS owed ON owed.pool_id = account.pool_id AND owed.party_id = account.party_id
    WHERE account.kind = 'payable' AND pool_status <> 'closed' AND balance.micros <> coalesce(owed.micros, 0)
    """,
    is_by_balance=True,
)
SETTLING: Final = Check(
    "R3",
    ("transfers", "batch records"),
    """
    SELECT account.pool_id::text, account.code, balance.micros, coalesce(signed.micros, 0), ''
    FROM account JOIN balance ON balance.id = account.id
    LEFT JOIN (
        SELECT batch.account_id, sum(record.amount_micros) AS micros FROM escrow_batch AS batch
        JOIN escrow_batchrecord AS record ON record.batch_id = batch.id WHERE batch.status = 'signed' GROUP BY 1
    ) AS signed ON signed.account_id = account.id
    WHERE account.kind = 'settling' AND pool_status <> 'closed' AND balance.micros <> coalesce(signed.micros, 0)
    """,
    is_by_balance=True,
)
RECORDS: Final = Check(
    "R3",
    ("batch records", "payments"),
    """
    SELECT batch.pool_id::text, 'record ' || record.seq, record.amount_micros, coalesce(sum(payment.amount_micros
        - payment.deducted_micros), 0), 'batch ' || batch.id
    FROM escrow_batchrecord AS record JOIN escrow_batch AS batch ON batch.id = record.batch_id
    JOIN scope ON scope.id = batch.pool_id
    LEFT JOIN escrow_payment AS payment ON payment.record_id = record.id
    WHERE batch.status <> 'void' GROUP BY batch.pool_id, record.id, batch.id
    HAVING record.amount_micros <> coalesce(sum(payment.amount_micros - payment.deducted_micros), 0)
        OR NOT bool_and(payment.party_id = record.party_id AND payment.pool_id = batch.pool_id)
    """,
)
STATUSES: Final = Check(
    "R3",
    ("payments", "batches"),
    """
    SELECT payment.pool_id::text, 'payment ' || payment.id, payment.amount_micros - payment.deducted_micros, 0,
        'the payment is ' || payment.status || ', batch ' || batch.id || ' is ' || batch.status
    FROM escrow_payment AS payment JOIN scope ON scope.id = payment.pool_id
    JOIN escrow_batchrecord AS record ON record.id = payment.record_id JOIN escrow_batch AS batch ON batch.id = record.batch_id
    WHERE (payment.status, batch.status) NOT IN (('settling', 'signed'), ('settled', 'settled'))
    """,
)
BATCHES: Final = Check(
    "R3",
    ("transfers", "batch records"),
    """
    SELECT batch.pool_id::text, 'batch ' || batch.id, coalesce(moved.settle, 0), coalesce(record.micros, 0),
        coalesce(moved.void, 0) || ' given back, and it is ' || batch.status
    FROM escrow_batch AS batch JOIN scope ON scope.id = batch.pool_id
    LEFT JOIN (SELECT batch_id, sum(amount_micros) AS micros FROM escrow_batchrecord GROUP BY 1) AS record
        ON record.batch_id = batch.id
    LEFT JOIN (
        SELECT ref, sum(amount_micros) FILTER (WHERE reason = 'settle') AS settle,
            sum(amount_micros) FILTER (WHERE reason = 'settle_void') AS void
        FROM escrow_transfer WHERE reason IN ('settle', 'settle_void') GROUP BY 1
    ) AS moved ON moved.ref = batch.id::text
    WHERE coalesce(moved.settle, 0) <> coalesce(record.micros, 0)
        OR coalesce(moved.void, 0) <> CASE batch.status WHEN 'void' THEN coalesce(record.micros, 0) ELSE 0 END
    """,
)
HOLDS: Final = Check(
    "R3",
    ("transfers", "holds"),
    """
    SELECT account.pool_id::text, account.code, balance.micros, coalesce((hold.status = 'held')::int, 0) * balance.micros,
        coalesce('the hold is ' || hold.status, 'there is no such hold')
    FROM account JOIN balance ON balance.id = account.id LEFT JOIN escrow_hold AS hold ON hold.account_id = account.id
    WHERE account.kind = 'hold' AND pool_status <> 'closed'
        AND (balance.micros > 0) IS DISTINCT FROM coalesce(hold.status = 'held', false)
    """,
    is_by_balance=True,
)
INVOICES: Final = Check(
    "R3",
    ("invoices", "holds and payments"),
    """
    SELECT account.pool_id::text, 'invoice ' || invoice.number, invoice.amount_micros,
        CASE WHEN invoice.status = 'approved' THEN coalesce(payment.amount_micros, 0) ELSE balance.micros END,
        'the invoice is ' || invoice.status || ', its hold ' || hold.status
    FROM escrow_invoice AS invoice JOIN escrow_hold AS hold ON hold.id = invoice.hold_id
    JOIN account ON account.id = hold.account_id JOIN balance ON balance.id = account.id
    LEFT JOIN escrow_payment AS payment ON payment.id = invoice.payment_id
    WHERE pool_status <> 'closed' AND CASE
        WHEN invoice.status IN ('submitted', 'rejected')
        THEN hold.status <> 'held' OR invoice.amount_micros > balance.micros OR invoice.party_id <> hold.party_id
        WHEN invoice.status = 'approved'
        THEN payment.amount_micros IS DISTINCT FROM invoice.amount_micros OR payment.party_id <> invoice.party_id
        WHEN invoice.status = 'withdrawn' THEN hold.status <> 'released' ELSE hold.status <> 'captured' END
    """,
    is_by_balance=True,
)
DISPUTES: Final = Check(
    "R3",
    ("transfers", "disputes"),
    """
    SELECT account.pool_id::text, account.code, balance.micros,
        CASE WHEN dispute.status IN ('open', 'answered', 'ruling') THEN dispute.amount_micros ELSE 0 END,
        coalesce('the dispute is ' || dispute.status, 'there is no such dispute')
    FROM account JOIN balance ON balance.id = account.id LEFT JOIN escrow_dispute AS dispute ON dispute.account_id = account.id
    WHERE account.kind IN ('dispute', 'contested') AND pool_status <> 'closed' AND balance.micros <>
        CASE WHEN dispute.status IN ('open', 'answered', 'ruling') THEN dispute.amount_micros
        WHEN dispute.id IS NULL AND account.kind = 'contested' THEN balance.micros ELSE 0 END
    """,
    is_by_balance=True,
)
REFUNDS: Final = Check(
    "R3",
    ("refunds", "transfers"),
    """
    SELECT payment.pool_id::text, 'refund ' || refund.id, refund.amount_micros, coalesce(moved.micros, 0),
        'it is ' || refund.status
    FROM escrow_refund AS refund JOIN escrow_payment AS payment ON payment.id = refund.payment_id
    JOIN scope ON scope.id = payment.pool_id
    LEFT JOIN (SELECT ref, sum(amount_micros) AS micros FROM escrow_transfer WHERE reason = 'refund' GROUP BY 1) AS moved
        ON moved.ref = refund.id::text
    WHERE coalesce(moved.micros, 0) <> CASE refund.status WHEN 'paid' THEN refund.amount_micros ELSE 0 END
    """,
)
REFUNDED: Final = Check(
    "R3",
    ("payments", "refunds"),
    """
    SELECT payment.pool_id::text, 'payment ' || payment.id, payment.refunded_micros, coalesce(back.micros, 0),
        payment.deducted_micros || ' deducted, ' || coalesce(taken.micros, 0) || ' in deductions'
    FROM escrow_payment AS payment JOIN scope ON scope.id = payment.pool_id
    LEFT JOIN (SELECT payment_id, sum(amount_micros) AS micros FROM escrow_refund WHERE status = 'paid' GROUP BY 1) AS back
        ON back.payment_id = payment.id
    LEFT JOIN (SELECT payment_id, sum(amount_micros) AS micros FROM escrow_deduction GROUP BY 1) AS taken
        ON taken.payment_id = payment.id
    WHERE payment.refunded_micros <> coalesce(back.micros, 0) OR payment.deducted_micros <> coalesce(taken.micros, 0)
    """,
)

CHECKS: Final = (
    MOVES,
    SESSIONS,
    PAYMENTS,
    PAYABLE,
    SETTLING,
    RECORDS,
    STATUSES,
    BATCHES,
    HOLDS,
    INVOICES,
    DISPUTES,
    REFUNDS,
    REFUNDED,
)
