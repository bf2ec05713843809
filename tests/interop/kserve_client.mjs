// A KServe v2 client in which nothing is ours: gRPC for Node, and Triton's published service.
//
//   node kserve_client.mjs DESCRIPTORS HOST:PORT MODEL IMAGE
//
// DESCRIPTORS is a FileDescriptorSet of grpc_service.proto. Prints one JSON object: the score, what
// it was judged by, and the map's shape and highest value; or the error's gRPC code and text.

import { readFileSync } from "node:fs";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const [descriptors, address, model, image] = process.argv.slice(2);

const definition = protoLoader.loadFileDescriptorSetFromBuffer(readFileSync(descriptors), {
  keepCase: true,
  longs: Number,
});
const { GRPCInferenceService } = grpc.loadPackageDefinition(definition).inference;
const client = new GRPCInferenceService(address, grpc.credentials.createInsecure());

const request = {
  model_name: model,
  inputs: [
    {
      name: "IMAGE_BYTES",
      datatype: "BYTES",
      shape: [1, 1], // one request, one image
      contents: { bytes_contents: [readFileSync(image)] }, // the file as it is
    },
  ],
  outputs: ["SCORE", "VERDICT", "THRESHOLDS", "RELEASE", "ANOMALY_MAP"].map((name) => ({ name })),
};

client.ModelInfer(request, { deadline: Date.now() + 60_000 }, (error, answer) => {
  if (error) {
    console.log(JSON.stringify({ code: error.code, details: error.details }));
  } else {
    const [score, thresholds, map] = ["SCORE", "THRESHOLDS", "ANOMALY_MAP"].map((name) =>
      floats(answer, name),
    );
    console.log(
      JSON.stringify({
        score: score.values[0],
        verdict: text(answer, "VERDICT"),
        thresholds: thresholds.values,
        release: text(answer, "RELEASE"),
        map: map.shape,
        highest: map.values.reduce((a, b) => Math.max(a, b)),
      }),
    );
  }
  client.close();
});

function output(answer, name) {
  const index = answer.outputs.findIndex((output) => output.name === name);
  return { raw: answer.raw_output_contents[index], shape: answer.outputs[index].shape };
}

function floats(answer, name) {
  const { raw, shape } = output(answer, name); // FP32, little-endian
  const values = Array.from({ length: raw.length / 4 }, (_, i) => raw.readFloatLE(4 * i));
  return { shape, values };
}

function text(answer, name) {
  const { raw } = output(answer, name); // the one element's length in four bytes, then its bytes
  return raw.toString("utf8", 4, 4 + raw.readUInt32LE(0));
}
