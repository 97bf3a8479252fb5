-- Ends holdings, each if the lock is that owner's, and hands the locks to their waiters. A
-- request that does not hold the lock leaves the wait queue.
--
-- Four texts make the script: this one, clock.lua, queue.lua, release.lua. Up to 32 locks of one
-- process in a call, one round trip.
--
-- KEYS  for each lock: the lock, its fence, its queue, its waiters
-- ARGV  1 the channel of this process
--       then for each lock: owner id, for how long the fence is to be remembered in ms, the state
--       that tells how the run ended, as it stands in a text, and after that for how many ms the
--       lock is to be kept taken (nothing: it is free at once)
-- Answer  of a single lock as it is, otherwise a list:
--         1 ended, 0 not held by that owner (which has left the queue, if it stood there)
--         {owner id, token, acquired at in ms, the same in microseconds, claim in ms}
--                       ended, and handed to a waiter of this process, which learns of its
--                       grant by this answer alone
--         {-1, error}   not done
--
-- This part serves locks without a queue that are to be free at once: most calls need no more, and
-- return before the rest of the script reads the clock or makes a function. What it does not serve,
-- for whatever reason, it leaves as it was to `end_holding` in release.lua.
--
-- Danger: a lock that stays taken because something beside it is damaged. A release by
-- the holder always frees the lock, whatever the queue and the fence hold.

-- 33: the end of the state in the text of a lock or fence; a fence of that length was not there.
-- How a holding ended is a courtesy: a server short of memory may refuse it. That the user lacks
-- the right is told (in the words of Redis before 7.2, or of later ones); the lock is free all the
-- same.
local count = #KEYS / 4
local answers, is_done = {}, false
if count == 1 then
    if #ARGV[4] == 20 and redis.call('EXISTS', KEYS[3]) == 0 then
        local text = redis.pcall('GETRANGE', KEYS[1], '0', '139')
        if type(text) == 'string' and string.sub(text, 1, 28) == '{"applock":1,"state":"held",'
            and string.find(text, ARGV[2], 60, true)
            and type(redis.pcall('DEL', KEYS[1], KEYS[4])) == 'number' then
            local length = redis.pcall('SETRANGE', KEYS[2], '13', ARGV[4])
            if length == 33 then
                redis.call('DEL', KEYS[2])
            elseif type(length) == 'number' then
                redis.pcall('PEXPIRE', KEYS[2], ARGV[3])
            elseif string.find(length.err, "can't run", 1, true)
                or string.find(length.err, 'ACL failure', 1, true) then
                return redis.error_reply(length.err)
            end
            return 1
        end
    end
else
    local locks, queues, texts = {}, {}, {}
    for i = 1, #KEYS, 4 do
        locks[#locks + 1], queues[#queues + 1] = KEYS[i], KEYS[i + 2]
    end
    if redis.call('EXISTS', unpack(queues)) == 0 then
        texts = redis.call('MGET', unpack(locks))
    end
    local freed, seen = {}, {}
    is_done = true
    for at = 1, count do
        local text, lock, arg = texts[at], locks[at], 3 * at - 2
        if text and #ARGV[arg + 3] == 20 and not seen[lock]
            and string.sub(text, 1, 28) == '{"applock":1,"state":"held",'
            and string.find(text, ARGV[arg + 1], 60, true) then
            seen[lock] = true
            freed[#freed + 1], freed[#freed + 2] = lock, KEYS[4 * at]
            answers[at] = 1
        else
            is_done = false
        end
    end
    if freed[1] and type(redis.pcall('DEL', unpack(freed))) ~= 'number' then
        answers, is_done = {}, false
    end
    for at = 1, count do
        if answers[at] then
            local fence = KEYS[4 * at - 2]
            local length = redis.pcall('SETRANGE', fence, '13', ARGV[3 * at + 1])
            if length == 33 then
                redis.call('DEL', fence)
            elseif type(length) == 'number' then
                redis.pcall('PEXPIRE', fence, ARGV[3 * at])
            elseif string.find(length.err, "can't run", 1, true)
                or string.find(length.err, 'ACL failure', 1, true) then
                answers[at] = {-1, length.err}
            end
        end
    end
end
if is_done then
    return answers
end

