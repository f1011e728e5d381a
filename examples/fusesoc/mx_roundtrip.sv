// FP32 values to MXFP8 blocks, and back to what is left of them: two emitted units, with the payloads as the structures of
// their packages.
module mx_roundtrip (
  input  logic clk,
  input  logic rst,
  input  mx_quantizer_pkg::i_t x_payload,
  input  logic x_valid,
  output logic x_ready,
  output mx_dequantizer_pkg::o_t y_payload,
  output logic y_valid,
  input  logic y_ready
);
  mx_quantizer_pkg::o_t quantized;
  mx_dequantizer_pkg::i_t block;
  logic block_valid, block_ready;

  mx_quantizer u_mx_quantizer (
    .clk(clk),
    .rst(rst),
    .i__payload(x_payload),
    .i__valid(x_valid),
    .i__ready(x_ready),
    .o__payload(quantized),
    .o__valid(block_valid),
    .o__ready(block_ready)
  );

  // Here the block would be stored or sent: 33 bytes for 32 values.
  always_comb begin
    block.scale = quantized.scale;
    block.elements = quantized.elements;
  end

  mx_dequantizer u_mx_dequantizer (
    .clk(clk),
    .rst(rst),
    .i__payload(block),
    .i__valid(block_valid),
    .i__ready(block_ready),
    .o__payload(y_payload),
    .o__valid(y_valid),
    .o__ready(y_ready)
  );
endmodule
