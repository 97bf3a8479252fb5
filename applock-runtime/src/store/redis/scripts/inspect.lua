-- Reads who holds the lock, and who held it last. Stands alone.
--
-- Changes nothing: a replica answers it as well, and may be behind. So the answer informs a
-- person, and decides nothing.
--
-- KEYS  1 the lock   2 its fence   3 its queue
-- Answer  {now in ms, type of the lock's key, its time left in ms, its text if it is a string,
--          the fence's time left in ms, its text, how many wait}

local time = redis.call('TIME')
local now = time[1] .. string.sub('00000' .. time[2], -6, -4)
local kind = redis.call('TYPE', KEYS[1]).ok
local text = kind == 'string' and redis.call('GET', KEYS[1]) or ''
if string.sub(text, 1, 11) ~= '{"applock":' then
    -- A text that is none of ours may be long, and its beginning says enough.
    text = string.sub(text, 1, 80)
end
return {now, kind, redis.call('PTTL', KEYS[1]), text,
    redis.call('PTTL', KEYS[2]), redis.call('GET', KEYS[2]) or '', redis.call('ZCARD', KEYS[3])}
