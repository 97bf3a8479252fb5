-- What every script that changes a lock begins with: the clock, and what is needed where a request
-- waits. This text stands before `acquire`, `release` and `force_release`; it takes and answers
-- nothing by itself.
--
-- These are the decisions of the runtime's module `protocol/`, in Lua: a test compares the two,
-- random step by random step. Change a rule there first. What belongs to one request alone is
-- in the script of that request.
--
-- A lock is one string, a line of JSON for people to read, and its expiry is the lease:
--   {"applock":1,"owner":"<32 hex digits>","token":T,"acquired_at":ms,"remember":ms,...,"ttl":ms}
--   {"applock":1,"claim":ms,"owner":...    granted to a waiter that has not confirmed it
--   {"applock":1,"kept":ms,"owner":...     given back, and kept by at_least: no owner holds it
-- 1 is the version of the layout. Scripts compare and cut these texts by their beginning, which is
-- always in this order and without blanks: `requests.rs` writes what follows `acquired_at`.
-- The fence is the text of the newest holding, and once that has ended:
--   ...,"ttl":ms,"ended":"released" or "forced","until":ms}
-- It expires `remember` after the lease or the release.
--
-- The wait queue of a lock is two keys. They are gone when no request waits.
--   queue    sorted set: owner id by ticket (the server's clock in microseconds, or the last
--            ticket + 1), so that the first is the one that has waited longest
--   waiters  hash:
--     owner id -> 'ttl in ms' .. ' ' .. 'remember in ms' .. ' ' .. channel .. ' ' .. tail
--       tail: the text of its lock from `remember` on
--     '@' .. channel -> 'when a waiter of that process last polled, in ms' .. ' ' .. run
--       run: '0' if the process can't be notified on its channel, and polls instead; otherwise
--       the run id of the server where it has subscribed, '1' if it may not know that
--
-- For example, A holds; B of a process that was killed waits, then C. A is released:
--   ZPOPMIN takes B; the lock is written for B; PUBLISH reaches no client; the lock is deleted.
--   ZPOPMIN takes C; the lock is written for C; PUBLISH reaches one; the fence is written for C.
--   B is put back, with its ticket: its process polled less than 40 seconds ago.
--
-- Dangers, and the rules that guard against them:
--   - A script that fails half-way is not rolled back. What can fail (type, right, memory) comes
--     before the write that counts (rule R3).
--   - A lock that is offered to a dead waiter. Nothing stays written for a waiter that does not
--     get the lock; see `offer`.
--   - A waiter that loses its place to a short cut of the network. A skipped waiter keeps its
--     place for as long as its process may be alive.
--
-- The server makes a script's functions anew in each call, and each costs it as much as a command.
-- So all that an uncontended lock does not need is made by one function, `make_rest`, when it is
-- needed; and numbers stay text where nothing is counted.

local clock = redis.call('TIME')
local micros = clock[1] .. string.sub('00000' .. clock[2], -6)
local now = string.sub(micros, 1, -4)

-- The last token, in a fence.
local LAST_TOKEN = '^{"applock":1,"owner":"%x+","token":(%d+),'

local function make_rest()
    -- The largest fencing token. This number, and those below, are the protocol's: a unit test in
    -- requests.rs compares them.
    local MAX_TOKEN = 9007199254740991
    -- All in ms, and each the protocol's (`Timing::MILLIS`).
    -- The longest lease of a waiter that was granted the lock and has not confirmed it.
    local CLAIM = 3000
    -- A process that can't be notified, and has not polled for longer, is skipped.
    local SILENCE = 3000
    -- A process that can't be reached, and has not polled for longer, is dead: its waiters leave
    -- the queue.
    local DEAD_AFTER = 40000
    -- Every waiter polls more often than this. A queue that no waiter polls expires.
    local QUEUE_LIFE = 45000
    -- After a restart of the server, how long a lock is kept for a waiter whose subscription may
    -- be on its way back.
    local GRACE = 500

    local rest = {}

    -- A number as text with all its digits: `tostring` rounds to 14.
    function rest.whole(number)
        return string.format('%.0f', number)
    end

    -- Ends the step for this lock with an error of our own, in the form that `one` expects.
    function rest.fail(text)
        error({err = text})
    end

    -- Carries out a step for one lock of several. Locks in one call share a round trip, and no
    -- more: one that fails does not undo another. Answers the step's answer, or {-1, error}.
    function rest.one(act, ...)
        local done, answer = pcall(act, ...)
        if done then
            return answer
        end
        return rest.failed(answer)
    end

    -- The answer for a lock whose step failed, with what `pcall` caught.
    function rest.failed(caught)
        local text = type(caught) == 'table' and caught.err or tostring(caught)
        -- Redis 6.2 writes the place in the script before the error, and a dash.
        return {-1, string.match(text, ': %-?(%u%u+ .*)$') or text}
    end

    -- The answer of the call. An error of a single lock, or of all (on a replica), is the script's
    -- own error.
    function rest.all(answers)
        local first = answers[1]
        if type(first) == 'table' and first[1] == -1
            and (#answers == 1 or string.find(first[2], 'READONLY', 1, true) == 1) then
            return redis.error_reply(first[2])
        end
        return answers
    end

    -- The next fencing token: the larger of (last token + 1) and the clock in microseconds (rule
    -- R8), compared as numbers. A token that is lost with its fence, or was never written, does
    -- not make the next one smaller: the clock has gone on. Reading it also finds out a fence that
    -- is no string, or none of ours.
    function rest.next_token(fence)
        local last = redis.call('GET', fence)
        if not last then
            return micros
        end
        local number = tonumber((string.match(last, LAST_TOKEN)))
        if not number then
            local version = string.match(last, '^{"applock":(%d+),')
            rest.fail(version and 'BADFENCE it is of version ' .. version .. ' of the layout'
                or 'BADFENCE it holds ' .. string.format('%q', string.sub(last, 1, 80)))
        end
        if number < tonumber(micros) then
            return micros
        end
        if number >= MAX_TOKEN then
            rest.fail('BADFENCE the fencing token is at its largest value')
        end
        return rest.whole(number + 1)
    end

    -- What a lock's text says: its phase ('' held, or its claim or its keep), its owner id, the
    -- text from the owner id on. Nothing if no version-1 lock is there.
    function rest.read(text)
        return string.match(text, '^{"applock":1,(.-)("owner":"(%x+)","token":%d+,"acq.*)$')
    end

    function rest.is_kept(phase)
        return string.sub(phase, 1, 7) == '"kept":'
    end

    -- A write that changes nothing, so that a replica or a server that can't write says so, and
    -- does not answer from what it remembers.
    function rest.touch(fence)
        local left = redis.call('PTTL', fence)
        redis.call('PEXPIRE', fence, left > 0 and left or 604800000)
    end

    -- Sets a lease back to its full ttl. A claim is confirmed by it: the text changes then. A server
    -- short of memory may refuse that, and the next heartbeat tries again.
    function rest.confirm(lock, fence, phase, holding, ttl, remember)
        local done = phase ~= '' and redis.pcall('SET', lock, '{"applock":1,' .. holding, 'PX', ttl)
        if not done or done.err then
            redis.call('PEXPIRE', lock, ttl)
        end
        redis.call('PEXPIRE', fence, ttl + remember)
    end

    -- A holding that begins now, as text.
    function rest.holding(token, owner, tail)
        return '"owner":"' .. owner .. '","token":' .. token .. ',"acquired_at":' .. now .. tail
    end

    -- Gives a free lock to a holder that is certain to have it. The fence, whose writing can fail
    -- (type, rights, memory), comes first (rule R3). With a `claim` (in ms) the lock begins as a
    -- short lease, which the holder's first heartbeat makes a full one.
    function rest.grant(lock, fence, token, owner, ttl, remember, tail, claim)
        local holding = rest.holding(token, owner, tail)
        rest.write_fence(fence, holding, claim or ttl, remember)
        rest.write_lock(lock, holding, ttl, claim)
    end

    -- Notes in the fence who holds the lock from now on.
    function rest.write_fence(fence, holding, lease, remember)
        redis.call('SET', fence, '{"applock":1,' .. holding, 'PX', lease + remember)
    end

    function rest.write_lock(lock, holding, ttl, claim)
        local phase = claim and '"claim":' .. claim .. ',' or ''
        redis.call('SET', lock, '{"applock":1,' .. phase .. holding, 'PX', claim or ttl)
    end

    -- Notes in the fence how the holding ended. A courtesy: a server short of memory may refuse it.
    function rest.note_end(fence, holding, ended, till, remember)
        redis.pcall('SET', fence, '{"applock":1,' .. string.sub(holding, 1, -2) .. ',"ended":"'
            .. ended .. '","until":' .. till .. '}', 'PX', remember)
    end

    -- Puts a request into the queue, or leaves it where it stands, and notes that its process has
    -- polled. `ticket`: '0', or that of a place it had and the server has lost.
    -- Answers: the ticket of a request that did not stand there before, or '0'; how many wait now;
    -- how many of them stand before it.
    function rest.join(queue, waiters, owner, ttl, remember, tail, ticket, channel, run)
        local is_last = ticket == '0'
        if is_last then
            local last = redis.call('ZRANGE', queue, -1, -1, 'WITHSCORES')[2]
            last = last and tonumber(last)
            ticket = last and last >= tonumber(micros) and rest.whole(last + 1) or micros
        end
        local new = redis.call('ZADD', queue, 'NX', ticket, owner) == 1
        redis.call('HSET', waiters, owner, ttl .. ' ' .. remember .. ' ' .. channel .. ' ' .. tail,
            '@' .. channel, now .. ' ' .. run)
        redis.call('PEXPIRE', queue, QUEUE_LIFE)
        redis.call('PEXPIRE', waiters, QUEUE_LIFE)
        local count = redis.call('ZCARD', queue)
        local ahead = new and is_last and count - 1 or redis.call('ZRANK', queue, owner)
        return new and ticket or '0', count, ahead
    end

    -- Whether the process has subscribed to an earlier run of this server: to one that has
    -- restarted since. `false` where that can't be known.
    local function has_restarted(run)
        local info = run ~= '1' and redis.pcall('INFO', 'server')
        local known = type(info) == 'string' and string.match(info, 'run_id:(%w+)')
        return known and known ~= run
    end

    -- Offers a free lock to a waiter: `owner`, with the `ttl`, `remember` and `tail` of its
    -- request; its process has been silent for `silence` ms, and is notified on `channel` as `run`
    -- says.
    -- Answers: whether the waiter has the lock now; its claim in ms, `nil` for a full lease.
    --
    -- `own_channel`: the channel of the process that asks. Its waiters are notified by the
    -- answer, and nothing is published. `requester`: the owner id that asks for itself, and gets
    -- a full lease. `unreachable`: the channels that this call has found without a subscriber.
    --
    -- A waiter that needs no message is certain to have the lock: see `grant`. A waiter that has
    -- to be notified may be dead, and PUBLISH alone tells. There the order is: the lock, the
    -- message, the fence.
    --   - The lock before the message, so that no other request can take it between the two, and
    --     two processes never think they hold it.
    --   - The fence after the message, so that a dead waiter leaves nothing behind: its lock is
    --     deleted here, and the last holding stays the one that was. Writing the fence is not
    --     expected to fail: `next_token` has read it, so its type and the rights are known. If it
    --     fails all the same, the next token is still larger, by the clock.
    local function offer(lock, fence, own_channel, requester, unreachable, token, owner, ttl,
        remember, tail, silence, channel, run)
        local claim = tonumber(ttl) > CLAIM and CLAIM or ttl
        if owner == requester then
            rest.grant(lock, fence, token, owner, ttl, remember, tail, nil)
            return true, nil
        end
        if channel == own_channel or run == '0' and silence <= SILENCE then
            rest.grant(lock, fence, token, owner, ttl, remember, tail, claim)
            return true, claim
        end
        if unreachable[channel] or run == '0' then
            return false, nil
        end
        local holding = rest.holding(token, owner, tail)
        rest.write_lock(lock, holding, ttl, claim)
        -- An error (no right to publish) is not 0 receivers: that waiter finds its grant when it
        -- polls.
        local receivers = redis.pcall('PUBLISH', channel,
            owner .. ' ' .. token .. ' ' .. micros .. ' ' .. claim)
        local lease = claim
        if receivers == 0 and has_restarted(run) then
            redis.call('PEXPIRE', lock, GRACE)
            lease = GRACE
        elseif receivers == 0 then
            unreachable[channel] = true
            redis.call('DEL', lock)
            return false, nil
        end
        rest.write_fence(fence, holding, lease, remember)
        return true, claim
    end

    -- Hands a free lock to the first waiter that can be reached. `token` is the next fencing
    -- token; `first` is what ZPOPMIN took out of the queue: {owner id, ticket}, or {}.
    -- Answers: the owner id that has the lock now, or `nil`; its claim in ms, if it is of the
    -- process that asks. Where no waiter has it, the key of the holding that has ended may still
    -- be there: the caller deletes it.
    --
    -- A skipped waiter keeps its place until its process is dead. What the hash knows of a
    -- process that waits no more goes with the hash, at the lock's release or with time.
    function rest.serve(lock, fence, queue, waiters, own_channel, requester, token, first)
        local unreachable, skipped = {}, {}
        local served, claim = nil, nil
        while not served and first[1] do
            local owner, silence, run, is_served = first[1], 0, '0', false
            local ttl, remember, channel, tail = string.match(
                redis.call('HGET', waiters, owner) or '', '^(%d+) (%d+) (%S+) (.*)$')
            if not ttl then
                silence = DEAD_AFTER + 1
            elseif channel ~= own_channel and owner ~= requester then
                local seen = redis.call('HGET', waiters, '@' .. channel)
                local at, listens = string.match(seen or '', '^(%d+) (%w+)$')
                silence, run = at and now - at or DEAD_AFTER + 1, listens or '0'
            end
            if ttl then
                is_served, claim = offer(lock, fence, own_channel, requester, unreachable, token,
                    owner, ttl, remember, tail, silence, channel, run)
            end
            if is_served then
                served = owner
                claim = channel == own_channel and claim or nil
            end
            if not is_served and silence <= DEAD_AFTER then
                skipped[#skipped + 1] = first
            else
                redis.call('HDEL', waiters, owner)
            end
            if not is_served then
                first = redis.call('ZPOPMIN', queue)
            end
        end
        for i = 1, #skipped do
            redis.call('ZADD', queue, skipped[i][2], skipped[i][1])
        end
        if #skipped > 0 then
            -- ZPOPMIN may have emptied the key and dropped its expiry. It gets that of the hash,
            -- not a fresh one: the last poll bounds it, and a queue of dead waiters expires.
            redis.call('PEXPIRE', queue, math.max(redis.call('PTTL', waiters), 1))
        end
        return served, claim
    end

    return rest
end

