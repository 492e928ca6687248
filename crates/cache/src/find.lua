-- What is at KEYS[1]: {1, value, milliseconds that it is good for}, or {0, lease}. The lease is the one that others load under already,
-- or else ARGV[1], for ARGV[2] milliseconds.
local value = redis.call('HGET', KEYS[1], 'value')
if value then
  return {1, value, redis.call('PTTL', KEYS[1])}
end
local lease = redis.call('HGET', KEYS[1], 'lease')
if not lease then
  lease = ARGV[1]
  redis.call('HSET', KEYS[1], 'lease', lease)
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return {0, lease, 0}
