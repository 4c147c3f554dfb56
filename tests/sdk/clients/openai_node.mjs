// The `openai` package for Node.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import OpenAI from "openai";
import { brokeKey, key, limitedKey, raised, run, url, weather } from "./checks.mjs";

const made = (apiKey, terms = {}) => new OpenAI({ apiKey, baseURL: `${url}/v1`, ...terms });
const client = made(key);
const messages = [{ role: "user", content: "how are you" }];
const ask = { model: "m", messages, max_tokens: 5 };
const tools = [{ type: "function", function: { name: "weather", description: "The weather", parameters: weather } }];
const forced = { type: "function", function: { name: "weather" } };

await run({
  async chat() {
    const answer = await client.chat.completions.create(ask);
    assert.ok(answer.choices[0].message.content);
    assert.equal(answer.usage.completion_tokens, 5);
  },
  async stream() {
    let text = "";
    for await (const chunk of await client.chat.completions.create({ ...ask, stream: true })) {
      text += chunk.choices[0].delta.content ?? "";
      assert.ok(chunk.usage == null);
    }
    assert.ok(text.trim());
  },
  async tools() {
    const answer = await client.chat.completions.create({ ...ask, max_tokens: 50, tools, tool_choice: forced });
    const said = answer.choices[0].message;
    assert.equal(said.tool_calls[0].function.name, "weather");
    const result = { role: "tool", tool_call_id: said.tool_calls[0].id, content: "sunny" };
    const after = await client.chat.completions.create({ ...ask, messages: [...messages, said, result], tools });
    assert.ok(after.choices[0].message.content);
  },
  async structured() {
    const schema = {
      type: "object", properties: { name: { type: "string" } }, required: ["name"], additionalProperties: false,
    };
    const response_format = { type: "json_schema", json_schema: { name: "person", schema, strict: true } };
    const answer = await client.chat.completions.parse({ ...ask, max_tokens: 100, response_format });
    assert.equal(typeof JSON.parse(answer.choices[0].message.content).name, "string");
  },
  async completions() {
    const answer = await client.completions.create({ model: "m", prompt: "how are you", max_tokens: 5 });
    assert.equal(answer.usage.completion_tokens, 5);
  },
  async embeddings() {
    const answer = await client.embeddings.create({ model: "m", input: ["how are you", "fine"] });
    assert.equal(answer.data.length, 2);
    assert.ok(answer.data[0].embedding.length);
  },
  async responses() {
    const answer = await client.responses.create({ model: "m", input: "how are you", max_output_tokens: 16 });
    assert.ok(answer.output_text);
    const types = [];
    for await (const event of await client.responses.create({ model: "m", input: "hi", max_output_tokens: 16, stream: true }))
      types.push(event.type);
    assert.equal(types[0], "response.created");
    assert.ok(["response.completed", "response.incomplete"].includes(types.at(-1)));
  },
  async models() {
    const found = [];
    for await (const model of client.models.list()) found.push(model.id);
    assert.ok(found.includes("m"));
    assert.equal((await client.models.retrieve("m")).id, "m");
  },
  async timeout() {
    const impatient = made(key, { timeout: 500, maxRetries: 0 });
    await raised(OpenAI.APIConnectionTimeoutError, () => impatient.chat.completions.create({ ...ask, model: "sleepy" }));
  },
  async errors() {
    const missing = await raised(OpenAI.NotFoundError, () => client.chat.completions.create({ ...ask, model: "none" }));
    assert.equal(missing.code, "model_not_found");
    const bad = await raised(OpenAI.BadRequestError, () => client.chat.completions.create({ ...ask, max_tokens: -1 }));
    assert.equal(bad.param, "max_tokens");
    await raised(OpenAI.AuthenticationError, () => made("th_sk_nobody").chat.completions.create(ask));
  },
  async no_retry_402() {
    const refused = await raised(OpenAI.APIError, () => made(brokeKey).chat.completions.create(ask));
    assert.equal(refused.status, 402);
    assert.equal(refused.code, "insufficient_quota");
  },
  async no_retry_409() {
    const once = { headers: { "Idempotency-Key": randomUUID() } };
    await client.chat.completions.create(ask, once);
    const twice = await raised(OpenAI.ConflictError, () => client.chat.completions.create(ask, once));
    assert.equal(twice.code, "duplicate_request");
  },
  async retry_429() {
    const limited = made(limitedKey);
    const held = await limited.chat.completions.create({ ...ask, model: "slow", max_tokens: 30, stream: true });
    const events = held[Symbol.asyncIterator]();
    await events.next();
    const second = limited.chat.completions.create(ask);
    while (!(await events.next()).done);
    assert.ok((await second).choices[0].message.content);
  },
});
