-- Empties the partition for an epoch and leaves it closed: 1. 0: the epoch is not above its own. -1: the gate that `run`
-- names is not this server. Rate limits go on: they are of this minute, whoever opens.
local run, epoch = given[2], given[3]
if not string.find(run, ARGV[1], 1, true) then
  return -1
end
if epoch <= tonumber(redis.call('HGET', STATE, 'epoch') or -1) then
  return 0
end
redis.call('UNLINK', STATE, BUDGETS, HOLDS, UNLOGGED, ONCE, SLOTS, DUE)
-- A hash whose fields are short and few is a list that each look goes through; one that ever had a long one is a table.
redis.call('HSET', BUDGETS, '#', string.rep('-', 1024))
redis.call('HSET', BUDGETS, '#', '')
redis.call('HSET', STATE, 'run', run, 'node', ARGV[1], 'epoch', text(epoch))
return 1
