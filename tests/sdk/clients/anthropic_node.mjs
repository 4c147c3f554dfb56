// The `@anthropic-ai/sdk` package for Node.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import Anthropic from "@anthropic-ai/sdk";
import { brokeKey, key, limitedKey, raised, run, url, weather } from "./checks.mjs";

const made = (apiKey, terms = {}) => new Anthropic({ apiKey, baseURL: url, ...terms });
const client = made(key);
const messages = [{ role: "user", content: "how are you" }];
const ask = { model: "claude", messages, max_tokens: 5 };
const tools = [{ name: "weather", description: "The weather", input_schema: weather }];
const both = ["claude", "m"]; // the second one's backend speaks OpenAI's protocol

await run({
  async stream() {
    for (const model of both) {
      const answer = await client.messages.stream({ ...ask, model }).finalMessage();
      assert.ok(answer.content[0].text.trim());
      assert.equal(answer.usage.output_tokens, 5);
    }
  },
  async tools() {
    for (const model of both) {
      const tool_choice = { type: "tool", name: "weather" };
      const answer = await client.messages.create({ ...ask, model, max_tokens: 50, tools, tool_choice });
      assert.equal(answer.content.find((block) => block.type === "tool_use").name, "weather");
    }
  },
  async messages() {
    for (const model of both) {
      const answer = await client.messages.create({ ...ask, model, system: "be kind" });
      assert.ok(answer.content[0].text);
      assert.equal(answer.usage.output_tokens, 5);
    }
  },
  async count_tokens() {
    assert.ok((await client.messages.countTokens({ model: "claude", messages })).input_tokens);
  },
  async timeout() {
    const impatient = made(key, { timeout: 500, maxRetries: 0 });
    await raised(Anthropic.APIConnectionTimeoutError, () => impatient.messages.create({ ...ask, model: "sleepy" }));
  },
  async errors() {
    await raised(Anthropic.NotFoundError, () => client.messages.create({ ...ask, model: "none" }));
    await raised(Anthropic.BadRequestError, () => client.messages.create({ ...ask, max_tokens: -1 }));
    await raised(Anthropic.AuthenticationError, () => made("th_sk_nobody").messages.create(ask));
  },
  async no_retry_402() {
    const refused = await raised(Anthropic.APIError, () => made(brokeKey).messages.create(ask));
    assert.equal(refused.status, 402);
  },
  async no_retry_409() {
    const once = { headers: { "Idempotency-Key": randomUUID() } };
    await client.messages.create(ask, once);
    await raised(Anthropic.ConflictError, () => client.messages.create(ask, once));
  },
  async retry_429() {
    const limited = made(limitedKey);
    const held = await limited.messages.create({ ...ask, model: "slow", max_tokens: 30, stream: true });
    const events = held[Symbol.asyncIterator]();
    await events.next();
    const second = limited.messages.create(ask);
    while (!(await events.next()).done);
    assert.ok((await second).content[0].text);
  },
});
