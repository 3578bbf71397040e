// The files of deploy/pocket, byte for byte, in read-only memory. C++20 has no #embed.
.macro pocket_file symbol, path
  .balign 64
  .global cohort_pocket_\symbol
cohort_pocket_\symbol:
  .incbin "\path"
  .global cohort_pocket_\symbol\()_end
cohort_pocket_\symbol\()_end:
.endm

  .section .rodata
  pocket_file config, "config.json"
  pocket_file generation_config, "generation_config.json"
  pocket_file tokenizer, "tokenizer.json"
  pocket_file tokenizer_config, "tokenizer_config.json"
  pocket_file model, "model.safetensors"
  .section .note.GNU-stack, "", %progbits
