// The official SDK of OpenAI, unchanged but for its base URL. What it learns is told as one JSON object.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.env.LLMLB_URL, apiKey: process.env.LLMLB_KEY, maxRetries: 0 });
const model = "model-a";
const messages = [{ role: "user", content: "hello" }];
const learnt = {};

const chat = await client.chat.completions.create({ model, messages });
learnt.chat = chat.choices[0].message.content;

learnt.streamed = "";
for await (const chunk of await client.chat.completions.create({ model, messages, stream: true })) {
  learnt.streamed += chunk.choices[0]?.delta?.content ?? "";
}

const embedded = await client.embeddings.create({ model, input: ["a", "b"] });
learnt.dimensions = embedded.data.map((entry) => entry.embedding.length);

const response = await client.responses.create({ model, input: "hello" });
learnt.response = response.output_text;

learnt.events = [];
for await (const event of await client.responses.create({ model, input: "hello", stream: true })) {
  learnt.events.push(event.type);
}

learnt.models = (await client.models.list()).data.map((entry) => entry.id);

try {
  await client.chat.completions.create({ model: "nothing", messages });
} catch (error) {
  learnt.error = { type: error.constructor.name, status: error.status, code: error.code };
}

process.stdout.write(JSON.stringify(learnt));
