-- Where a bus that keeps events itself has put them: it may lose what it acknowledged, and then these rows tell what to publish again.
-- Null for what was published without a receipt, by an embedded bus or by earlier code.
ALTER TABLE outbox ADD COLUMN stream INTEGER;
ALTER TABLE outbox ADD COLUMN receipt INTEGER;
CREATE INDEX outbox_receipt ON outbox (stream, receipt DESC) WHERE stream IS NOT NULL;
