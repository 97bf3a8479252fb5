-- Ends holdings, each if the lock is that owner's, and hands the locks to their waiters. A
-- request that does not hold the lock leaves the wait queue.
--
-- Stands after queue.lua. Up to 32 locks of one process in a call, one round trip.
--
-- KEYS  for each lock: the lock, its fence, its queue, its waiters
-- ARGV  1 the channel of this process
--       then for each lock: owner id, keep it taken for so many ms still (0: free at once)
-- Answer  for each lock:
--         1 ended, 0 not held by that owner (which has left the queue, if it stood there)
--         {owner id, token, acquired at in ms, the same in microseconds, claim in ms}
--                       ended, and handed to a waiter of this process, which learns of its
--                       grant by this answer alone
--         {-1, error}   not done
--
-- Danger: a lock that stays taken because something beside it is damaged. A release by
-- the holder always frees the lock, whatever the queue and the fence hold.

-- One lock without a queue that is to be free at once: most calls are this one, and make no
-- function.
if #KEYS == 4 and ARGV[3] == '0' and redis.call('EXISTS', KEYS[3]) == 0 then
    local text = redis.pcall('GET', KEYS[1])
    -- 54: the length of that beginning, up to the owner id's last digit.
    if type(text) == 'string' and string.sub(text, 1, 54) == '{"applock":1,"owner":"' .. ARGV[2] then
        local failed = redis.pcall('DEL', KEYS[1], KEYS[4])
        if type(failed) == 'table' then
            local rest = make_rest()
            return rest.all({rest.failed(failed)})
        end
        -- How it ended is a courtesy: a server short of memory may refuse it.
        redis.pcall('SET', KEYS[2], string.sub(text, 1, -2) .. ',"ended":"released","until":' .. now
            .. '}', 'PX', string.match(text, '"remember":(%d+)', 54) or 0)
        return {1}
    end
end

local rest = nil

-- One lock, whatever stands there.
local function end_holding(at)
    local lock, fence, queue, waiters = unpack(KEYS, 4 * at - 3, 4 * at)
    local owner, keep, own_channel = ARGV[2 * at], ARGV[2 * at + 1], ARGV[1]
    local text = redis.pcall('GET', lock)
    if type(text) == 'table' then
        if not string.find(text.err, 'WRONGTYPE', 1, true) then
            rest.fail(text.err)
        end
        text = ''
    end
    local phase, holding, holder = rest.read(text or '')
    if holder ~= owner or rest.is_kept(phase) then
        -- A replica that lacks the key must say READONLY, not 'not yours'.
        rest.touch(fence)
        if redis.call('ZREM', queue, owner) > 0 then
            if redis.call('EXISTS', queue) > 0 then
                redis.call('HDEL', waiters, owner)
            else
                -- The last waiter leaves nothing behind.
                redis.call('DEL', waiters)
            end
        end
        return 0
    end
    local remember = string.match(holding, '"remember":(%d+)') or 0
    if keep ~= '0' then
        redis.call('PEXPIRE', lock, keep)
        -- No owner id holds it now: a heartbeat that was on its way must not lengthen it.
        redis.pcall('SET', lock, '{"applock":1,"kept":' .. keep .. ',' .. holding, 'PX', keep)
        rest.note_end(fence, holding, 'released', rest.whole(now + keep), remember + keep)
        return 1
    end
    local first = redis.pcall('ZPOPMIN', queue)
    if not first[1] then
        redis.call('DEL', lock, waiters)
    else
        local done, served, token, claim = pcall(function()
            local token = rest.next_token(fence)
            local served, claim = rest.serve(lock, fence, queue, waiters, own_channel, nil, token,
                first)
            return served, token, claim
        end)
        if done and served then
            return claim and {served, token, now, micros, claim} or 1
        end
        -- Whatever is wrong with the queue, the lock is free; unless it went to a waiter
        -- that may have been notified already.
        local _, _, left = rest.read(redis.call('GET', lock) or '')
        if left == owner then
            redis.call('DEL', lock)
        end
    end
    rest.note_end(fence, holding, 'released', now, remember)
    return 1
end

local count = #KEYS / 4
local texts = {}
-- Without queues, locks that are held and to be free at once are freed together.
if count > 1 then
    local locks, queues = {}, {}
    for i = 1, #KEYS, 4 do
        locks[#locks + 1], queues[#queues + 1] = KEYS[i], KEYS[i + 2]
    end
    if redis.call('EXISTS', unpack(queues)) == 0 then
        texts = redis.call('MGET', unpack(locks))
    end
end

local answers, seen, freed = {}, {}, {}
for at = 1, count do
    local text, lock, owner = texts[at], KEYS[4 * at - 3], ARGV[2 * at]
    -- 54: the length of that beginning, up to the owner id's last digit.
    if type(text) == 'string' and ARGV[2 * at + 1] == '0' and not seen[lock]
        and string.sub(text, 1, 54) == '{"applock":1,"owner":"' .. owner then
        seen[lock] = true
        freed[#freed + 1], freed[#freed + 2] = lock, KEYS[4 * at]
        answers[at] = 1
    end
end
if freed[1] then
    redis.call('DEL', unpack(freed))
end
for at = 1, count do
    if answers[at] then
        -- How it ended is a courtesy: a server short of memory may refuse it.
        redis.pcall('SET', KEYS[4 * at - 2], string.sub(texts[at], 1, -2) .. ',"ended":"released","until":'
            .. now .. '}', 'PX', string.match(texts[at], '"remember":(%d+)', 54) or 0)
    else
        rest = rest or make_rest()
        answers[at] = rest.one(end_holding, at)
    end
end
return rest and rest.all(answers) or answers
