-- What every script begins with: the clock, the fencing token, and the line of those who
-- wait for a lock.
--
-- The line is a sorted set (owner ids by ticket), and a hash of who they are:
--   owner id -> JSON of {ttl in ms, channel of the process, app, name, instance, host, pid}
--   '@' .. channel -> 'when a waiter of that process last asked, in ms' .. ' ' ..
--     ('0': it can't listen on its channel, and asks again and again instead; otherwise
--     the run id of the server where it has subscribed, '1' if it may not know that)

-- A lock that was handed over stays so long with one who does not confirm it.
local CLAIM = 3000
-- A process that can only ask is thought dead after so long a silence.
local SILENCE = 3000
-- The waiters of one that can't be reached keep their places for so long after it asked.
local PATIENCE = 40000
-- Everybody in line asks more often than this: a line of the dead expires.
local LINE_LIFE = 45000
-- After a restart of the server each has so long to come back and ask.
local GRACE = 500

local clock = redis.call('TIME')
local micros = clock[1] * 1000000 + clock[2]
local now = math.floor(micros / 1000)

local function whole(number)
    return string.format('%.0f', number)
end

-- For the pcall in `for_each`.
local function fail(text)
    error({err = text})
end

-- Does something for each of the locks in KEYS; one that fails does not undo another.
-- What fails for a single lock, or for all (on a replica), is the script's own error.
local function for_each(act, header, width)
    local answers = {}
    for i = 0, #KEYS / 4 - 1 do
        local key, arg = 4 * i, header + width * i
        local done, answer = pcall(act, KEYS[key + 1], KEYS[key + 2], KEYS[key + 3],
            KEYS[key + 4], unpack(ARGV, arg + 1, arg + width))
        if not done then
            local text = type(answer) == 'table' and answer.err or tostring(answer)
            -- Redis 6.2 tells where it was, and puts a dash before.
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

-- The larger of (last token + 1) and the clock in microseconds (rule R8).
local function next_token(fence)
    local last = redis.call('HGET', fence, 'token')
    local token = micros
    if last then
        local number = tonumber(last)
        if not (number and number >= 0) then
            fail('BADFENCE the last fencing token is ' .. string.format('%q', last))
        end
        token = math.max(number + 1, token)
    end
    if token > 9007199254740991 then
        fail('BADFENCE the fencing token is at its largest value')
    end
    return whole(token)
end

-- Writes a lock that is free. A script is not rolled back when it fails half-way (rule
-- R3): the fence, whose writing can fail (type, rights, memory), comes first.
local function write(lock, fence, life, owner, ttl, claim, app, name, instance, host, pid)
    local token, since = next_token(fence), whole(now)
    redis.call('HSET', fence, 'token', token, 'last_owner', owner, 'last_instance', instance,
        'last_host', host, 'last_pid', pid, 'last_from', since, 'last_ttl', ttl,
        'last_until', '', 'last_ending', '')
    redis.call('PEXPIRE', fence, life)
    if claim then
        redis.call('HSET', lock, 'owner', owner, 'token', token, 'app', app, 'name', name,
            'instance', instance, 'host', host, 'pid', pid, 'acquired_at', since, 'ttl', ttl,
            'claim', claim)
    else
        redis.call('HSET', lock, 'owner', owner, 'token', token, 'app', app, 'name', name,
            'instance', instance, 'host', host, 'pid', pid, 'acquired_at', since, 'ttl', ttl)
    end
    redis.call('PEXPIRE', lock, claim or ttl)
    return token
end

-- Puts one into the line, or leaves it where it stands. 1: it is new there.
local function join(queue, waiters, owner, ttl, channel, run, app, name, instance, host, pid)
    local last = redis.call('ZRANGE', queue, -1, -1, 'WITHSCORES')[2]
    local ticket = last and math.max(tonumber(last) + 1, micros) or micros
    local new = redis.call('ZADD', queue, 'NX', whole(ticket), owner)
    redis.call('HSET', waiters, owner,
        cjson.encode({ttl, channel, app, name, instance, host, pid}),
        '@' .. channel, whole(now) .. ' ' .. run)
    redis.call('PEXPIRE', queue, LINE_LIFE)
    redis.call('PEXPIRE', waiters, LINE_LIFE)
    return new
end

-- Forgets who one was that stands in line no more.
local function forget(queue, waiters, owner)
    if redis.call('EXISTS', queue) == 0 then
        redis.call('DEL', waiters)
    else
        redis.call('HDEL', waiters, owner)
    end
end

-- Whether this server is not the one that a process has subscribed to: it has restarted.
local function has_restarted(run)
    local info = run ~= '1' and redis.pcall('INFO', 'server')
    local known = type(info) == 'string' and string.match(info, 'run_id:(%w+)')
    return known and known ~= run
end

-- Offers a free lock to one who stands in line. Answers its token if it has it.
--
-- `here` is the channel of the process that asks: its waiters are told by the answer, and
-- nothing is published. `asker` asks for itself: it gets a full lease.
local function offer(lock, fence, life, here, asker, gone, owner, who, silence, run)
    local ttl, channel = who[1], who[2]
    local claim = tonumber(ttl) > CLAIM and CLAIM or ttl
    if owner == asker then
        claim = nil
    elseif channel ~= here and (gone[channel] or run == '0' and silence > SILENCE) then
        return nil
    end
    local token = write(lock, fence, life, owner, ttl, claim, who[3], who[4], who[5], who[6],
        who[7])
    if owner == asker or channel == here or run == '0' then
        return token, claim
    end
    -- An error (no right to publish) is no 0: it finds out when it asks again.
    local receivers = redis.pcall('PUBLISH', channel,
        owner .. ' ' .. token .. ' ' .. whole(micros) .. ' ' .. claim)
    if receivers ~= 0 then
        return token
    end
    if has_restarted(run) then
        -- Its subscription may be on its way back: it has time to ask.
        redis.call('PEXPIRE', lock, GRACE)
        return token
    end
    gone[channel] = true
    redis.call('DEL', lock)
    return nil
end

-- Hands a free lock to the first in line who is alive. Answers the owner, its token, and
-- its claim if it is of the process that asks. See `offer`.
local function serve(lock, fence, queue, waiters, life, here, asker)
    local gone, passed, over, served, token, claim = {}, {}, {}, nil, nil, nil
    while not served do
        local first = redis.call('ZPOPMIN', queue)
        local owner = first[1]
        if not owner then
            break
        end
        local read, who = pcall(cjson.decode, redis.call('HGET', waiters, owner) or '')
        local seen = read and redis.call('HGET', waiters, '@' .. who[2])
        local at, run = string.match(seen or '', '^(%d+) (%w+)$')
        local silence = at and now - at or PATIENCE + 1
        if read then
            token, claim = offer(lock, fence, life, here, asker, gone, owner, who, silence,
                run or '0')
        end
        if token then
            served = owner
            claim = who[2] == here and claim or nil
        end
        if not token and silence <= PATIENCE then
            passed[#passed + 1] = first
        else
            over[#over + 1] = owner
        end
    end
    for i = 1, #passed do
        redis.call('ZADD', queue, passed[i][2], passed[i][1])
    end
    if #passed > 0 then
        -- It may have been empty for a moment, and lost its time to live.
        redis.call('PEXPIRE', queue, LINE_LIFE)
    end
    for i = 1, #over do
        forget(queue, waiters, over[i])
    end
    return served, token, claim
end
