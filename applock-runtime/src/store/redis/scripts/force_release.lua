-- Ends whatever holding there is, if its heartbeats have stopped, or in any case, and hands
-- the lock to a waiter. For an operator, never for a holder.
--
-- Stands after clock.lua and queue.lua. One lock in a call.
--
-- KEYS  1 the lock   2 its fence   3 its queue   4 its waiters
--       5 (only to end a plain string) where the Python AppLocker says who holds it
-- ARGV  1 only if no heartbeat came for so many ms, and for half of the ttl (-1: in any case)
--       2 who does it, as JSON
-- Answer  1 ended, 0 there was none or it is not stale,
--         the type's name: something that is no lock stands there, and was left alone; 'string':
--         ask again with the fifth key
--
-- Danger: to end a holding whose holder works on, or to delete data that is no lock. And to leave
-- the fifth key behind: by that alone a Python holder knows that it holds the lock, so an evicted
-- one would set the expiry of the next holder's lock, and delete it in the end.

local lock, fence, stale = KEYS[1], KEYS[2], tonumber(ARGV[1])

-- Frees the lock. `state`: of its text, if that is one of ours.
local function free(text, state)
    redis.call('DEL', lock)
    local first = redis.pcall('ZPOPMIN', KEYS[3])
    if not first[1] then
        redis.pcall('DEL', KEYS[4])
    else
        -- Whatever is wrong with the queue: the lock is free. No own channel: the operator's
        -- process gets no grant by this answer.
        local done, served = pcall(function()
            -- The run of a lock that is kept has ended before, as its fence says.
            local ended = state and state ~= 'kept' and 'forced' or nil
            local token = next_token(fence, ended)
            return (serve(lock, fence, KEYS[3], KEYS[4], '', nil, token, ended, first))
        end)
        if done and served then
            return
        end
    end
    local remember = remembered(text)
    if state == 'kept' then
        redis.pcall('PEXPIRE', fence, remember)
    elseif state then
        note_end(fence, FORCED, remember)
        -- Who did it: a courtesy like that.
        local text = redis.pcall('GETRANGE', fence, '0', FENCE_END)
        local first, rest = string.match(type(text) == 'string' and text or '', '^([^\n]*,)("token":%d+.*)$')
        if first then
            redis.pcall('SET', fence, first .. '"forced_by":' .. ARGV[2] .. ',' .. rest, 'PX',
                remember)
        end
    end
end

local text, kind = read_text(lock)
if kind == 'none' then
    return 0
end
local state = read(text)
if not state then
    -- Not one of our locks. It has no heartbeat, so it is never stale. A plain string may be
    -- another program's lock, which an operator may free; other data is left alone.
    if stale >= 0 then
        return 0
    end
    if kind ~= 'string' or not KEYS[5] then
        return kind
    end
    -- Only what the Python AppLocker wrote: a lock of ours may have that key for its name. What
    -- is no string, and what this user may not read, is an error here, and left alone.
    local said = redis.pcall('GETRANGE', KEYS[5], '0', '14')
    if said == '{"acquired_at":' then
        redis.call('DEL', KEYS[5])
    end
    free('', nil)
    return 1
end
if stale >= 0 then
    -- A lock that its holder gave back and at_least keeps has no heartbeat by design.
    if state == 'kept' then
        return 0
    end
    -- A heartbeat comes each third of the ttl: a pause of less than half of it is none.
    local ttl, left = tonumber(string.match(text, '"ttl":(%d+)')) or 0, redis.call('PTTL', lock)
    if state == 'claimed' then
        ttl = math.min(ttl, CLAIM)
    end
    if left >= 0 and ttl - left < math.max(stale, ttl / 2) then
        return 0
    end
end

free(text, state)
return 1
