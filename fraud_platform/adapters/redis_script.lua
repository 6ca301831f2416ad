-- What the online store does inside Redis: storage only. It looks at keys, takes down what has arrived and hands out
-- whatever the engine (features/engine.py) can ask for; what any of it means is decided by the client.
--
-- Put in front (redis_session.py): LATENESS, TRIM, WAITING_MAX, and PLANS: of each plan the shape of its log, its windows.
-- An entity's key is five Redis keys in one slot:
--   s  hash: v version, another one with each outcome, h head (doubles, as HEAD), w names of the counters of entries
--      that wait, n names of the transactions that the State carries along, s the State
--   p  list of the arrivals that it has not taken in: T moment entry | R known_at | W known_at of a report that is withdrawn
--   t  zset of transactions: moment -> transaction 16, amount 8, place 16 (where the plan has one), values 16 each; arrivals
--      too; empty as long as the State carries all of them along
--   r  zset of reports: known_at -> transaction 16
--   d  hash of counters as of the snapshot, where there is a log: column byte, value 16 -> times in each window
-- What is known of a transaction is one string: c (claimed), v or l (answered, late) or k (known only), when it was reported
-- (double, -1: never), length of the record (2), the record, the vector.

-- Moments are whole numbers, so what lies before one ends 1 before it.
local NEVER, FAR = -1, 2 ^ 62
local HEAD = 11
local NO_TOKEN = string.rep('\0', 16)
local pack, unpack_bytes, sub = struct.pack, struct.unpack, string.sub
local min, max = math.min, math.max


local function head(plan, at)
  local found = redis.call('HMGET', KEYS[at], 'v', 'h', 'w', 'n', 's')
  local key = {version = 0, has_log = false, state = '', waiting_names = '', names = '', moment = 0, last = NEVER, before_last = NEVER,
    last_report = NEVER, place = NEVER, place_before = NEVER, waiting = 0, log_from = 0, first = FAR,
    trimmed = NEVER, oldest = {}, oldest_report = {}}
  local windows, reports = #plan.windows, #plan.reports
  if not found[1] then
    for w = 1, windows do key.oldest[w] = FAR end
    for w = 1, reports do key.oldest_report[w] = FAR end
    return key
  end
  local n = {unpack_bytes('<' .. string.rep('d', HEAD + windows + reports), found[2])}
  key.version, key.waiting_names, key.names, key.state = tonumber(found[1]), found[3], found[4], found[5]
  key.moment, key.last, key.before_last, key.last_report = n[1], n[2], n[3], n[4]
  key.place, key.place_before, key.waiting, key.has_log, key.log_from = n[5], n[6], n[7], plan.log and n[8] == 1, n[9]
  key.first, key.trimmed = n[10] == NEVER and FAR or n[10], n[11]
  for w = 1, windows do key.oldest[w] = n[HEAD + w] end
  for w = 1, reports do key.oldest_report[w] = n[HEAD + windows + w] end
  return key
end

-- The snapshot's facts with what has arrived since; `lowest` are moments that fall behind the snapshot.
local function look(plan, at)
  local key = head(plan, at)
  key.lowest, key.lowest_report, key.taken = FAR, FAR, 0
  key.pending = redis.call('LRANGE', KEYS[at + 1], 0, -1)
  for _, arrival in ipairs(key.pending) do
    local kind, moment = sub(arrival, 1, 1), unpack_bytes('<d', arrival, 2)
    if kind == 'T' then
      key.taken = key.taken + 1
      key.last, key.first = max(key.last, moment), min(key.first, moment)
      if moment < key.moment then key.lowest = min(key.lowest, moment) end
    elseif kind == 'R' then
      key.last_report = max(key.last_report, moment)
      if moment < key.log_from then key.trimmed = max(key.trimmed, moment) end
      if moment < key.moment then key.lowest_report = min(key.lowest_report, moment) end
    end
  end
  return key
end

local function interval(into, lower, upper)
  lower = max(lower, 0)
  if lower < upper then into[#into + 1] = {lower, upper} end
end

-- Where the entries that leave a window lie: up to and with the first one that stays.
local function expiring(into, name, key, widths, oldest, lowest, moment)
  for w, width in ipairs(widths) do
    local lower = min(oldest[w], max(lowest, key.moment - width))
    local bound = moment - width
    if lower < bound then
      local upper = key.moment
      if bound < upper then
        local first = redis.call('ZRANGEBYSCORE', name, bound, upper - 1, 'WITHSCORES', 'LIMIT', 0, 1)
        if first[2] then upper = tonumber(first[2]) + 1 end
      end
      interval(into, lower, upper)
    end
  end
end

local function rewound(into, key, widths, moment)
  interval(into, moment, key.moment)
  for _, width in ipairs(widths) do interval(into, moment - width, min(moment, key.moment - width)) end
end

local function has_place(entry) local x = unpack_bytes('<d', entry, 25) return x == x end

-- The entries before a moment that tell the last one and the last place, ties of it, and one that is older; all
-- of the past where there is none.
local function behind(into, plan, name, key, moment)
  local is_plain = #key.pending == 0
  if not (is_plain and min(key.last, key.before_last) < moment) then
    local last = redis.call('ZREVRANGEBYSCORE', name, moment - 1, '-inf', 'WITHSCORES', 'LIMIT', 0, 1)
    interval(into, last[2] and tonumber(last[2]) or 0, moment)
  end
  if not plan.place or (is_plain and min(key.place, key.place_before) < moment) then return end
  local offset, found, lower = 0, nil, 0
  while lower == 0 do
    local page = redis.call('ZREVRANGEBYSCORE', name, moment - 1, '-inf', 'WITHSCORES', 'LIMIT', offset, 32)
    for i = 1, #page, 2 do
      local score = tonumber(page[i + 1])
      if found and score < found then lower = score break end
      if not found and has_place(page[i]) then found = score end
    end
    if #page < 64 then break end
    offset = offset + 32
  end
  interval(into, lower, moment)
end

-- A page, latest first, that begins with the entries of the last `last` moments in [lower, upper), and their number:
-- whole moments.
local function latest(name, lower, upper, last)
  local page, moments, before, i = {}, 0, nil, 2
  if upper <= 0 then return page, 0 end
  lower, upper = max(lower, 0), upper - 1
  while true do
    local more = redis.call('ZREVRANGEBYSCORE', name, upper, lower, 'WITHSCORES', 'LIMIT', #page / 2, last + 1)
    if #page == 0 then page = more else for _, part in ipairs(more) do page[#page + 1] = part end end
    while i <= #page do
      if page[i] ~= before then
        if moments == last then return page, i / 2 - 1 end
        moments, before = moments + 1, page[i]
      end
      i = i + 2
    end
    if #more < 2 * last + 2 then return page, #page / 2 end
  end
end

-- Which of the transactions were reported, and when.
local function reports_of(name, ids)
  local found = {}
  for i = 1, #ids, 1000 do
    local last = min(i + 999, #ids)
    for j, known_at in ipairs(redis.call('ZMSCORE', name, unpack(ids, i, last))) do
      if known_at then
        found[#found + 1] = ids[i + j - 1]
        found[#found + 1] = known_at
      end
    end
  end
  return found
end

-- What a Lookback is made of: a page and how much of it counts, for amounts and for outcomes; which of all that it can
-- be about were reported; the outermost reports.
local function looked_back(plan, at, key, moment)
  local amounts, amounts_count, outcomes, outcomes_count, reported = {}, 0, {}, 0, {}
  local oldest, newest = NEVER, NEVER
  local span = key.has_log and plan.amounts
  if span then
    local upper = moment - span.offset
    amounts, amounts_count = latest(KEYS[at + 2], upper - span.width, upper, span.last)
  end
  span = key.has_log and plan.outcomes
  if span then
    local upper = moment - span.offset
    outcomes, outcomes_count = latest(KEYS[at + 2], upper - span.width, upper, span.last)
  end
  if plan.outcomes and key.last_report ~= NEVER then
    local ids = {}
    for i = 1, 2 * outcomes_count, 2 do ids[#ids + 1] = sub(outcomes[i], 1, 16) end
    if not key.has_log then
      for i = 1, #key.names, 16 do ids[#ids + 1] = sub(key.names, i, i + 15) end
      for _, arrival in ipairs(key.pending) do
        if sub(arrival, 1, 1) == 'T' then ids[#ids + 1] = sub(arrival, 10, 25) end
      end
    end
    reported = reports_of(KEYS[at + 3], ids)
  end
  if plan.outer_reports > 0 and key.last_report ~= NEVER then
    local lower, name = max(moment - plan.outer_reports, 0), KEYS[at + 3]
    local page = redis.call('ZREVRANGEBYSCORE', name, moment - 1, lower, 'WITHSCORES', 'LIMIT', 0, 1)
    if page[2] then
      newest = tonumber(page[2])
      oldest = tonumber(redis.call('ZRANGEBYSCORE', name, lower, moment - 1, 'WITHSCORES', 'LIMIT', 0, 1)[2])
    end
  end
  return amounts, amounts_count, outcomes, outcomes_count, reported, oldest, newest
end

local function merged(intervals)
  table.sort(intervals, function(a, b) return a[1] < b[1] end)
  local whole = {}
  for _, each in ipairs(intervals) do
    local last = whole[#whole]
    if last and each[1] <= last[2] then last[2] = max(last[2], each[2]) else whole[#whole + 1] = each end
  end
  return whole
end

-- Bounds of what is whole, and a page of entries and moments for each.
local function fetched(name, intervals)
  local cover, pages = {}, {}
  for i, each in ipairs(merged(intervals)) do
    cover[2 * i - 1], cover[2 * i] = each[1], each[2]
    pages[i] = redis.call('ZRANGEBYSCORE', name, each[1], each[2] - 1, 'WITHSCORES')
  end
  return cover, pages
end

local function name_values(plan, names, entry)
  for column = 0, plan.columns - 1 do
    local value = sub(entry, plan.values + 16 * column, plan.values + 16 * column + 15)
    if value ~= NO_TOKEN then names[string.char(column) .. value] = true end
  end
end

-- Names of the counters that the engine can ask for, and the times that each stands for.
local function counters(plan, at, key, pages, own)
  if plan.columns == 0 or not key.has_log then return {}, {} end
  local names, list, found = {}, {}, {}
  for _, page in ipairs(pages) do
    for i = 1, #page, 2 do name_values(plan, names, page[i]) end
  end
  for _, arrival in ipairs(key.pending) do
    if sub(arrival, 1, 1) == 'T' then name_values(plan, names, sub(arrival, 10)) end
  end
  for i = 1, #key.waiting_names, 17 do names[sub(key.waiting_names, i, i + 16)] = true end
  if own ~= '' then name_values(plan, names, own) end
  for name in pairs(names) do list[#list + 1] = name end
  for i = 1, #list, 1000 do
    local times = redis.call('HMGET', KEYS[at + 4], unpack(list, i, min(i + 999, #list)))
    for j = 1, #times do found[i + j - 1] = times[j] end
  end
  return list, found
end

-- In the order that RedisKeySession reads: the server turns tables into bytes faster than a script does.
local function answer(plan, at, key, moment, is_late, trim_upper, own)
  local t, r = {}, {}
  if moment ~= NEVER then
    if moment >= key.moment then
      if key.has_log then
        expiring(t, KEYS[at + 2], key, plan.windows, key.oldest, key.lowest, moment)
        if key.waiting < 0 or key.waiting + key.taken > WAITING_MAX then interval(t, key.moment, moment) end
      end
      expiring(r, KEYS[at + 3], key, plan.reports, key.oldest_report, key.lowest_report, moment)
      if #plan.reports > 0 and key.last_report >= key.moment then interval(r, key.moment, moment) end
    else
      if key.has_log then rewound(t, key, plan.windows, moment) end
      rewound(r, key, plan.reports, moment)
    end
    if is_late and key.has_log then behind(t, plan, KEYS[at + 2], key, moment) end
  end
  local cover, pages, cover_r, pages_r, old, old_reports = {}, {}, {}, {}, {}, {}
  if #t > 0 then cover, pages = fetched(KEYS[at + 2], t) end
  if #r > 0 then cover_r, pages_r = fetched(KEYS[at + 3], r) end
  if trim_upper ~= NEVER then
    if key.has_log then
      old = redis.call('ZRANGEBYSCORE', KEYS[at + 2], '-inf', trim_upper - 1, 'WITHSCORES', 'LIMIT', 0, TRIM)
    end
    old_reports = redis.call('ZRANGEBYSCORE', KEYS[at + 3], '-inf', trim_upper - 1, 'WITHSCORES')
  end
  local names, times = counters(plan, at, key, pages, own)
  local out = {key.version, key.has_log and 1 or 0, trim_upper, key.state, key.names, key.pending, cover, pages, cover_r,
    pages_r, names, times, old, old_reports}
  if moment ~= NEVER and own ~= '' then
    for _, part in ipairs({looked_back(plan, at, key, moment)}) do out[#out + 1] = part end
  end
  return out
end

local function is_there(plan, at, key, moment, entry)
  local id = sub(entry, 1, 16)
  for _, arrival in ipairs(key.pending) do
    if sub(arrival, 1, 1) == 'T' and sub(arrival, 10, 25) == id then return true end
  end
  for i = 1, #key.names, 16 do
    if sub(key.names, i, i + 15) == id then return true end
  end
  if not key.has_log then return false end
  for _, other in ipairs(redis.call('ZRANGEBYSCORE', KEYS[at + 2], moment, moment)) do
    if sub(other, 1, 16) == id then return true end
  end
  return false
end

local function append(key, at, moment, entry)
  redis.call('RPUSH', KEYS[at + 1], 'T' .. pack('<d', moment) .. entry)
  if key.has_log then redis.call('ZADD', KEYS[at + 2], moment, entry) end
end

-- mode, moment, record, (plan, entry)*: record is '' or claims the transaction that KEYS[1] stands for. Modes:
-- event (takes it down), repair (takes it down where it is not yet), repeat, peek (whether it comes too late).
local function arrive()
  local mode, moment, record = ARGV[1], tonumber(ARGV[2]), ARGV[3]
  local at = record == '' and 1 or 2
  if record ~= '' then
    local seen = redis.call('GET', KEYS[1])
    if seen then return {'seen', seen} end
  end
  local visits = {}
  for i = 4, #ARGV, 2 do
    local plan = PLANS[tonumber(ARGV[i])]
    local key = look(plan, at)
    local is_late = mode == 'repair' or mode == 'repeat' or moment < key.moment or moment < key.last
    if is_late and max(moment - plan.reach, 0) <= key.trimmed then
      return {'late', (i - 4) / 2, answer(plan, at, key, NEVER, false, NEVER, '')}
    end
    visits[#visits + 1] = {plan, key, is_late, ARGV[i + 1], at}
    at = at + 5
  end
  if mode == 'peek' then return {'new'} end
  if mode == 'event' and record == '' then
    -- The id was claimed in another step: a repeat that took its owner for dead may have been here since.
    for _, visit in ipairs(visits) do
      if is_there(visit[1], visit[5], visit[2], moment, visit[4]) then return {'there'} end
    end
  end
  local out = {'new'}
  for _, visit in ipairs(visits) do
    local plan, key, is_late, entry, place = unpack(visit)
    if mode == 'repair' and not is_there(plan, place, key, moment, entry) then
      append(key, place, moment, entry)
      key = look(plan, place)
    end
    local upper = moment - plan.reach - LATENESS
    local first = key.first == FAR and moment or key.first
    if is_late or not plan.log or upper - plan.stride <= max(key.log_from, first) then upper = NEVER end
    out[#out + 1] = answer(plan, place, key, moment, is_late, upper, entry)
    if mode == 'event' then append(key, place, moment, entry) end
  end
  if record ~= '' then redis.call('SET', KEYS[1], record) end
  return out
end

-- plan, settled, then what Engine.settle can ask for.
local function visit()
  local plan, settled = PLANS[tonumber(ARGV[2])], tonumber(ARGV[3])
  local key = look(plan, 1)
  local moment = NEVER
  if key.moment <= settled and max(key.last, key.last_report) < settled then moment = settled end
  local upper = max(moment, key.moment) - plan.reach - LATENESS
  if upper < key.log_from then upper = NEVER end
  return answer(plan, 1, key, moment, false, upper, '')
end

-- What has arrived since goes where the key's transactions are from now on.
local function move(at, has_log)
  if not has_log then
    redis.call('DEL', KEYS[at + 2], KEYS[at + 4])
    return
  end
  for _, arrival in ipairs(redis.call('LRANGE', KEYS[at + 1], 0, -1)) do
    if sub(arrival, 1, 1) == 'T' then
      redis.call('ZADD', KEYS[at + 2], unpack_bytes('<d', arrival, 2), sub(arrival, 10))
    end
  end
end

-- (version, arrivals taken in, head, names that wait, names carried along, State, n, n * (counter, times or ''), n,
-- n * (moment, entry) to log, n, entries, n, reports, 1 or 0 where a log begins or ends)*
local function settle()
  local i, settled = 2, 0
  for at = 1, #KEYS, 5 do
    local version, taken = ARGV[i], tonumber(ARGV[i + 1])
    local current = redis.call('HGET', KEYS[at], 'v') or '0'
    local is_mine = current == version
    if is_mine then
      redis.call('HSET', KEYS[at], 'v', tonumber(version) + 1, 'h', ARGV[i + 2], 'w', ARGV[i + 3],
        'n', ARGV[i + 4], 's', ARGV[i + 5])
      if taken > 0 then redis.call('LTRIM', KEYS[at + 1], taken, -1) end
      settled = settled + 1
    end
    local n = tonumber(ARGV[i + 6])
    i = i + 7
    for _ = 1, n do
      if is_mine then
        if ARGV[i + 1] == '' then redis.call('HDEL', KEYS[at + 4], ARGV[i])
        else redis.call('HSET', KEYS[at + 4], ARGV[i], ARGV[i + 1]) end
      end
      i = i + 2
    end
    n = tonumber(ARGV[i])
    for j = i + 1, i + 2 * n, 2 do
      if is_mine then redis.call('ZADD', KEYS[at + 2], ARGV[j], ARGV[j + 1]) end
    end
    i = i + 2 * n + 1
    for place = at + 2, at + 3 do
      n = tonumber(ARGV[i])
      for j = i + 1, i + n do
        if is_mine then redis.call('ZREM', KEYS[place], ARGV[j]) end
      end
      i = i + n + 1
    end
    if is_mine and ARGV[i] ~= '' then move(at, ARGV[i] == '1') end
    i = i + 1
  end
  return settled
end

-- transaction, known_at: the first report of it, or one that was known earlier than that.
local function report()
  local id, known_at = ARGV[2], tonumber(ARGV[3])
  local found = redis.call('ZSCORE', KEYS[4], id) or (ARGV[4] ~= '' and ARGV[4])
  if found and tonumber(found) <= known_at then return 0 end
  redis.call('ZADD', KEYS[4], 'LT', known_at, id)
  if found then redis.call('RPUSH', KEYS[2], 'W' .. pack('<d', tonumber(found))) end
  redis.call('RPUSH', KEYS[2], 'R' .. pack('<d', known_at))
  return 1
end

-- record: claims a transaction; what is known of it where it was claimed before.
local function claim()
  local seen = redis.call('GET', KEYS[1])
  if not seen then redis.call('SET', KEYS[1], ARGV[2]) end
  return seen
end

-- Gives back what was claimed for an event that is refused.
local function unclaim()
  local seen = redis.call('GET', KEYS[1])
  if seen and sub(seen, 1, 1) == 'c' then redis.call('DEL', KEYS[1]) end
  return 1
end

-- v or l, vector: the first one that is told stays; what is known of the transaction then.
local function keep_vector()
  local seen = redis.call('GET', KEYS[1])
  if not seen or sub(seen, 1, 1) ~= 'c' then return seen end
  local answered = ARGV[2] .. sub(seen, 2) .. ARGV[3]
  redis.call('SET', KEYS[1], answered)
  return ARGV[4] and answered or 1
end

-- Whether they were answered late stays known: k or m.
local function strip_vectors()
  for _, name in ipairs(KEYS) do
    local seen = redis.call('GET', name)
    if seen then
      local state = sub(seen, 1, 1)
      local known = (state == 'l' or state == 'm') and 'm' or 'k'
      redis.call('SET', name, known .. sub(seen, 2, 11 + unpack_bytes('<I2', seen, 10)))
    end
  end
  return 1
end

local function mark_reported()
  local seen, known_at = redis.call('GET', KEYS[1]), tonumber(ARGV[2])
  if not seen then return 0 end
  local before = unpack_bytes('<d', seen, 2)
  if before ~= NEVER and before <= known_at then return 0 end
  redis.call('SETRANGE', KEYS[1], 1, pack('<d', known_at))
  return 1
end

-- moment, limit, again: names that are due, put off so that a sweep that dies leaves them to the next one.
local function due()
  local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', tonumber(ARGV[2]) - 1, 'LIMIT', 0, tonumber(ARGV[3]))
  for _, name in ipairs(found) do redis.call('ZADD', KEYS[1], ARGV[4], name) end
  return found
end

-- again, name*: takes them off where nobody has scheduled them since.
local function undue()
  for i = 3, #ARGV do
    local noted = redis.call('ZSCORE', KEYS[1], ARGV[i])
    if noted and tonumber(noted) == tonumber(ARGV[2]) then redis.call('ZREM', KEYS[1], ARGV[i]) end
  end
  return 1
end

local ACTIONS = {visit = visit, settle = settle, report = report, claim = claim, unclaim = unclaim,
  keep_vector = keep_vector, strip_vectors = strip_vectors, mark_reported = mark_reported, due = due, undue = undue}
return (ACTIONS[ARGV[1]] or arrive)()
