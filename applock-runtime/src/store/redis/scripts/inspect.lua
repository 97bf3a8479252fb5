-- Reads who holds the lock, and who held it last. Stands alone.
--
-- Changes nothing: a replica answers it as well, and may be behind. So the answer informs a
-- person, and decides nothing.
--
-- KEYS  1 the lock   2 its fence   3 its queue
-- Answer  {now in ms, type of the lock's key, its time left in ms, its text if it is a string,
--          the fence's time left in ms, its text or its type, how many wait}
--
-- Danger: a key that is none of ours may be as long as the server's memory. No more than the
-- longest text of ours is read, and of a text that is none of ours its beginning.

-- 1048831: a fence has two of them.
local function read_text(key)
    local text = redis.call('TYPE', key).ok == 'string' and redis.call('GETRANGE', key, '0', '1048831')
        or ''
    return string.sub(text, 1, 11) == '{"applock":' and text or string.sub(text, 1, 80)
end

-- What stands in the fence's place and is no string, is not nothing.
local kind = redis.call('TYPE', KEYS[2]).ok
local fence = (kind == 'string' or kind == 'none') and read_text(KEYS[2]) or '(a ' .. kind .. ')'

local time = redis.call('TIME')
local now = time[1] .. string.sub('00000' .. time[2], -6, -4)
return {now, redis.call('TYPE', KEYS[1]).ok, redis.call('PTTL', KEYS[1]), read_text(KEYS[1]),
    redis.call('PTTL', KEYS[2]), fence, redis.call('ZCARD', KEYS[3])}
