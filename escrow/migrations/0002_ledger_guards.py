"""The ledger's rules that only the database can keep: transfers are only added, and sums are what transfers say."""

from django.db import migrations

GUARDS = """
CREATE FUNCTION escrow_apply_transfers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Primary-key order, whatever order the statement was in: two batches can then never wait for each other.
    PERFORM 1 FROM escrow_account
    WHERE id IN (SELECT sender_id FROM added UNION SELECT receiver_id FROM added)
    ORDER BY id FOR NO KEY UPDATE;
    UPDATE escrow_account AS account
    SET sent_micros = account.sent_micros + change.sent, received_micros = account.received_micros + change.received
    FROM (
        SELECT side.id, sum(side.sent)::bigint AS sent, sum(side.received)::bigint AS received
        FROM (
            SELECT sender_id AS id, amount_micros AS sent, 0::bigint AS received FROM added
            UNION ALL
            SELECT receiver_id, 0, amount_micros FROM added
        ) AS side
        GROUP BY side.id
    ) AS change
    WHERE account.id = change.id;
    RETURN NULL;
END $$;

CREATE TRIGGER transfers_move_money AFTER INSERT ON escrow_transfer
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION escrow_apply_transfers();

CREATE FUNCTION escrow_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% on % is refused: %', TG_OP, TG_TABLE_NAME, TG_ARGV[0] USING ERRCODE = 'integrity_constraint_violation';
END $$;

CREATE TRIGGER transfers_only_grow BEFORE UPDATE OR DELETE OR TRUNCATE ON escrow_transfer
    FOR EACH STATEMENT EXECUTE FUNCTION escrow_refuse('a correction is another transfer');

-- Depth 0 is a statement from outside; the trigger above writes at depth 1.
CREATE TRIGGER accounts_follow_transfers BEFORE UPDATE ON escrow_account
    FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION escrow_refuse('an account follows its transfers');
CREATE TRIGGER accounts_start_empty BEFORE INSERT ON escrow_account
    FOR EACH ROW WHEN (NEW.sent_micros <> 0 OR NEW.received_micros <> 0)
    EXECUTE FUNCTION escrow_refuse('an account starts empty');
CREATE TRIGGER accounts_stay BEFORE DELETE OR TRUNCATE ON escrow_account
    FOR EACH STATEMENT EXECUTE FUNCTION escrow_refuse('an account is never deleted');
"""

UNGUARD = """
DROP TRIGGER accounts_stay ON escrow_account;
DROP TRIGGER accounts_start_empty ON escrow_account;
DROP TRIGGER accounts_follow_transfers ON escrow_account;
DROP TRIGGER transfers_only_grow ON escrow_transfer;
DROP TRIGGER transfers_move_money ON escrow_transfer;
DROP FUNCTION escrow_refuse();
DROP FUNCTION escrow_apply_transfers();
"""


class Migration(migrations.Migration):
    dependencies = [("escrow", "0001_initial")]
    operations = [migrations.RunSQL(GUARDS, UNGUARD)]
