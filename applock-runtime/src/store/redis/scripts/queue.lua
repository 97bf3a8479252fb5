-- What every script that changes a lock begins with: the clock, the fencing token, the writing
-- of a lock, and the wait queue. This text stands before `acquire`, `release` and
-- `force_release`; it takes and answers nothing by itself.
--
-- These are the decisions of the runtime's module `protocol/`, in Lua: a test compares the two,
-- random step by random step. Change a rule there first. What belongs to one request alone is
-- in the script of that request.
--
-- The wait queue of a lock is two keys. They are gone when no request waits.
--   queue    sorted set: owner id by ticket (the server's clock in microseconds, or the last
--            ticket + 1), so that the first is the one that has waited longest
--   waiters  hash:
--     owner id -> JSON of {ttl in ms, channel of the process, app, name, instance, host, pid}
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
-- The server compiles a script once and runs it often. So the functions that are needed only where
-- a request waits are made inside `wait_queue`, and numbers stay text where nothing is counted.

-- The largest fencing token. This number, and those in `make_wait_queue`, are the protocol's: a
-- unit test in requests.rs compares them.
local MAX_TOKEN = 9007199254740991

local clock = redis.call('TIME')
local micros = clock[1] .. string.sub('00000' .. clock[2], -6)
local now = string.sub(micros, 1, -4)

-- A number as text with all its digits: `tostring` rounds to 14.
local function whole(number)
    return string.format('%.0f', number)
end

-- Ends the step for this lock with an error of our own, in the form that `pcall` in `for_each`
-- expects.
local function fail(text)
    error({err = text})
end

-- Calls `act` with each lock's keys and its `width` arguments after the first `header` ones, and
-- answers its answers. Locks in one call share a round trip, and no more: one that fails does not
-- undo another. An error of a single lock, or of all (on a replica), is the script's own error.
local function for_each(act, header, width)
    local answers = {}
    for i = 0, #KEYS / 4 - 1 do
        local key, arg = 4 * i, header + width * i
        local done, answer = pcall(act, KEYS[key + 1], KEYS[key + 2], KEYS[key + 3],
            KEYS[key + 4], unpack(ARGV, arg + 1, arg + width))
        if not done then
            local text = type(answer) == 'table' and answer.err or tostring(answer)
            -- Redis 6.2 writes the place in the script before the error, and a dash.
            text = string.match(text, ': %-?(%u%u+ .*)$') or text
            if #KEYS == 4 or i == 0 and string.find(text, 'READONLY', 1, true) == 1 then
                return redis.error_reply(text)
            end
            answer = {-1, text}
        end
        answers[i + 1] = answer
    end
    return answers
end

-- The next fencing token: the larger of (last token + 1) and the clock in microseconds (rule R8).
-- A token that is lost with its fence, or was never written, does not make the next one smaller:
-- the clock has gone on. Reading it also finds out a fence that is not a hash.
local function next_token(fence)
    local last = redis.call('HGET', fence, 'token')
    if not last then
        return micros
    end
    local number = tonumber(last)
    if not (number and number >= 0) then
        fail('BADFENCE the last fencing token is ' .. string.format('%q', last))
    end
    if number < tonumber(micros) then
        return micros
    end
    if number >= MAX_TOKEN then
        fail('BADFENCE the fencing token is at its largest value')
    end
    return whole(number + 1)
end

-- Notes in the fence who holds the lock from now on.
local function write_fence(fence, fence_ttl, token, owner, ttl, instance, host, pid)
    redis.call('HSET', fence, 'token', token, 'last',
        owner .. ' ' .. now .. ' ' .. ttl .. ' ' .. pid, 'instance', instance, 'host', host)
    redis.call('PEXPIRE', fence, fence_ttl)
end

-- Writes a lock that is free. With a `claim` (in ms) it begins as a short lease, which the
-- holder's first heartbeat makes a full one.
local function write_lock(lock, token, owner, ttl, claim, app, name, instance, host, pid)
    if claim then
        redis.call('HSET', lock, 'owner', owner, 'token', token, 'app', app, 'name', name,
            'instance', instance, 'host', host, 'pid', pid, 'acquired_at', now, 'ttl', ttl,
            'claim', claim)
    else
        redis.call('HSET', lock, 'owner', owner, 'token', token, 'app', app, 'name', name,
            'instance', instance, 'host', host, 'pid', pid, 'acquired_at', now, 'ttl', ttl)
    end
    redis.call('PEXPIRE', lock, claim or ttl)
end

-- Gives a free lock to a holder that is certain to have it. The fence, whose writing can fail
-- (type, rights, memory), comes first (rule R3).
local function grant(lock, fence, fence_ttl, token, owner, ttl, claim, app, name, instance,
    host, pid)
    write_fence(fence, fence_ttl, token, owner, ttl, instance, host, pid)
    write_lock(lock, token, owner, ttl, claim, app, name, instance, host, pid)
end

local function make_wait_queue()
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

    local methods = {}

    -- Puts a request into the queue, or leaves it where it stands, and notes that its process has
    -- polled. `ticket`: '0', or that of a place it had and the server has lost.
    -- Answers: the ticket of a request that did not stand there before, or '0'; how many wait now;
    -- how many of them stand before it.
    function methods.join(queue, waiters, owner, ttl, ticket, channel, run, app, name, instance,
        host, pid)
        local is_last = ticket == '0'
        if is_last then
            local last = redis.call('ZRANGE', queue, -1, -1, 'WITHSCORES')[2]
            last = last and tonumber(last)
            ticket = last and last >= tonumber(micros) and whole(last + 1) or micros
        end
        local new = redis.call('ZADD', queue, 'NX', ticket, owner) == 1
        redis.call('HSET', waiters, owner,
            cjson.encode({ttl, channel, app, name, instance, host, pid}),
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

    -- Offers a free lock to a waiter: `owner`, as `who` (its JSON) describes it; its process has
    -- been silent for `silence` ms, and is notified as `run` says.
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
    local function offer(lock, fence, fence_ttl, own_channel, requester, unreachable, token, owner,
        who, silence, run)
        local ttl, channel = who[1], who[2]
        local claim = tonumber(ttl) > CLAIM and CLAIM or ttl
        if owner == requester then
            grant(lock, fence, fence_ttl, token, owner, ttl, nil, who[3], who[4], who[5], who[6],
                who[7])
            return true, nil
        end
        if channel == own_channel or run == '0' and silence <= SILENCE then
            grant(lock, fence, fence_ttl, token, owner, ttl, claim, who[3], who[4], who[5], who[6],
                who[7])
            return true, claim
        end
        if unreachable[channel] or run == '0' then
            return false, nil
        end
        write_lock(lock, token, owner, ttl, claim, who[3], who[4], who[5], who[6], who[7])
        -- An error (no right to publish) is not 0 receivers: that waiter finds its grant when it
        -- polls.
        local receivers = redis.pcall('PUBLISH', channel,
            owner .. ' ' .. token .. ' ' .. micros .. ' ' .. claim)
        if receivers == 0 and has_restarted(run) then
            redis.call('PEXPIRE', lock, GRACE)
        elseif receivers == 0 then
            unreachable[channel] = true
            redis.call('DEL', lock)
            return false, nil
        end
        write_fence(fence, fence_ttl, token, owner, ttl, who[5], who[6], who[7])
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
    function methods.serve(lock, fence, queue, waiters, fence_ttl, own_channel, requester, token,
        first)
        local unreachable, skipped = {}, {}
        local served, claim = nil, nil
        while not served and first[1] do
            local owner, silence, run, is_served = first[1], 0, '0', false
            local read, who = pcall(cjson.decode, redis.call('HGET', waiters, owner) or '')
            if not read then
                silence = DEAD_AFTER + 1
            elseif who[2] ~= own_channel and owner ~= requester then
                local seen = redis.call('HGET', waiters, '@' .. who[2])
                local at, listens = string.match(seen or '', '^(%d+) (%w+)$')
                silence, run = at and now - at or DEAD_AFTER + 1, listens or '0'
            end
            if read then
                is_served, claim = offer(lock, fence, fence_ttl, own_channel, requester,
                    unreachable, token, owner, who, silence, run)
            end
            if is_served then
                served = owner
                claim = who[2] == own_channel and claim or nil
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

    return methods
end

-- The functions of the wait queue, made when first needed: the uncontended path makes none.
local the_queue = nil
local function wait_queue()
    the_queue = the_queue or make_wait_queue()
    return the_queue
end
