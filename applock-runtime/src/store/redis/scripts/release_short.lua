-- Ends holdings, each if the lock is that owner's, and hands the locks to their waiters. A
-- request that does not hold the lock leaves the wait queue.
--
-- Four texts make the script: this one, clock.lua, queue.lua, release.lua. Up to 32 locks of one
-- process in a call, one round trip.
--
-- KEYS  of each lock: all locks, then all waiters, all queues, all fences
-- ARGV  1 the channel of this process
--       then for each lock: for how long the fence is to be remembered in ms; the state that tells how
--       the run ended, as it stands in a text, and after that for how many ms the lock is to be kept
--       taken (nothing: it is free at once); the lock's text from its state on, up to and with the
--       owner id, as it is while the lock is held
--       Or, of several locks that differ in their texts alone: the first two once, then each text
-- Answer  of a single lock as it is, otherwise a list:
--         1 ended, 0 not held by that owner (which has left the queue, if it stood there)
--         {owner id, token, acquired at in ms, the same in microseconds, claim in ms}
--                       ended, and handed to a waiter of this process, which learns of its
--                       grant by this answer alone
--         {-1, error}   not done
--
-- This part serves locks that no request waits for, and that are to be free at once: most calls need
-- no more, and return before the rest of the script reads the clock or makes a function. That none
-- waits is known by the lock's own text, `held` and not `awaited`: see queue.lua. What it does not
-- serve, for whatever reason, it leaves as it was to `end_holding` in release.lua.
--
-- Danger: a lock that stays taken because something beside it is damaged. A release by
-- the holder always frees the lock, whatever the queue and the fence hold.

-- 22: where the state stands in the text of a lock. 73: the last byte of the owner id, by which the
-- text is ours, of this version. 33: the end of the state; a fence of that
-- length was not there.
-- How a holding ended is a courtesy: a server short of memory may refuse it. That the user lacks
-- the right is told (in the words of Redis before 7.2, or of later ones); the lock is free all the
-- same.
local KEYS, ARGV, try = KEYS, ARGV, redis.pcall
local count = #KEYS / 4
local answers, is_done, is_shared = nil, false, false
if count == 1 then
    local lock, fence, ending = KEYS[1], KEYS[4], ARGV[3]
    if #ending == 20 and try('GETRANGE', lock, '22', '73') == ARGV[4]
        and type(try('DEL', lock, KEYS[2])) == 'number' then
        local length = try('SETRANGE', fence, '13', ending)
        if length == 33 then
            redis.call('DEL', fence)
        elseif type(length) == 'number' then
            try('PEXPIRE', fence, ARGV[2])
        elseif string.find(length.err, "can't run", 1, true)
            or string.find(length.err, 'ACL failure', 1, true) then
            return redis.error_reply(length.err)
        end
        return 1
    end
else
    is_shared = #ARGV == count + 3
    local texts, seen = redis.call('MGET', unpack(KEYS, 1, count)), {}
    answers, is_done = {}, true
    for at = 1, count do
        local text, lock = texts[at], KEYS[at]
        if text and not seen[lock]
            and string.sub(text, 23, 74) == ARGV[is_shared and at + 3 or 3 * at + 1]
            and #ARGV[is_shared and 3 or 3 * at] == 20 then
            seen[lock] = true
            answers[at] = 1
        else
            is_done = false
        end
    end
    local gone
    if is_done then
        gone = try('DEL', unpack(KEYS, 1, 2 * count))
    else
        local freed = {}
        for at = 1, count do
            if answers[at] then
                freed[#freed + 1], freed[#freed + 2] = KEYS[at], KEYS[count + at]
            end
        end
        gone = freed[1] and try('DEL', unpack(freed))
    end
    if type(gone) ~= 'number' then
        answers, is_done = {}, false
    end
    local remember, ending = ARGV[2], ARGV[3]
    for at = 1, count do
        if answers[at] then
            if not is_shared then
                remember, ending = ARGV[3 * at - 1], ARGV[3 * at]
            end
            local fence = KEYS[3 * count + at]
            local length = try('SETRANGE', fence, '13', ending)
            if length == 33 then
                redis.call('DEL', fence)
            elseif type(length) == 'number' then
                try('PEXPIRE', fence, remember)
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

