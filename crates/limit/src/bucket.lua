-- Takes calls out of the bucket KEYS[1] if it has room for one. ARGV: the interval and the depth, in microseconds; the calls: none,
-- to see whether there is room; less than none, to give back. Answers what the bucket lacks and the wait for room, in microseconds.
-- The same rule as Buckets::step.
local interval, depth, calls = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
-- The time is Redis' own: replicas whose clocks differ would fill one bucket at two rates.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local seen = tonumber(redis.call('GET', KEYS[1]) or now)
local full_at = math.min(math.max(seen, now), now + depth)
local wait = math.max(full_at + interval - now - depth, 0)
if calls < 0 or (calls > 0 and wait == 0) then
  full_at = math.max(full_at + calls * interval, now)
  if full_at > now then
    -- A full bucket is none: the key goes when it is.
    redis.call('SET', KEYS[1], string.format('%.0f', full_at), 'PX', math.ceil((full_at - now) / 1000))
  else
    redis.call('DEL', KEYS[1])
  end
end
return {full_at - now, wait}
