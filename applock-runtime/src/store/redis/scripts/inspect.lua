-- Reads who holds the lock, and who held it last. Stands alone.
--
-- Changes nothing: a replica answers it as well, and may be behind. So the answer informs a
-- person, and decides nothing.
--
-- KEYS  1 the lock   2 its fence   3 its queue
-- Answer  {now in ms, type of the lock's key, its time left in ms, {field, value, ...},
--          the fence's time left in ms, {field, value, ...}, how many wait}

local time = redis.call('TIME')
local now = time[1] .. string.sub('00000' .. time[2], -6, -4)
local kind = redis.call('TYPE', KEYS[1]).ok
local fields = {}
if kind == 'hash' then
    fields = redis.call('HGETALL', KEYS[1])
end
return {now, kind, redis.call('PTTL', KEYS[1]), fields,
    redis.call('PTTL', KEYS[2]), redis.call('HGETALL', KEYS[2]), redis.call('ZCARD', KEYS[3])}
