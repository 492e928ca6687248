-- Puts the value ARGV[2] at KEYS[1] for ARGV[3] milliseconds, if the lease ARGV[1] that it was loaded under is still good: an
-- invalidation, and every loss of data, takes it away.
if redis.call('HGET', KEYS[1], 'lease') == ARGV[1] then
  redis.call('HSET', KEYS[1], 'value', ARGV[2])
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
